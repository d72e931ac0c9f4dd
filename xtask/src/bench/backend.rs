//! The mail server behind the proxies that end TLS. It says yes to everything, knows XCLIENT, the PROXY protocol and AUTH, and
//! offers STARTTLS where it has a certificate: the sink of the gateway's own knows neither TLS nor users.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Bytes read at once.
const READ_MAX: usize = 64 * 1024;
/// Of a PROXY header of version 2: the fixed part, whose last two bytes are the length of the rest.
const PROXY_HEAD: usize = 16;
const END_OF_DATA: &[u8] = b"\r\n.\r\n";

/// Why a talk ended.
enum Ended {
    Over,
    StartTls,
}

/// Serves, for ever. `proxied`: a PROXY header of version 2 stands before everything.
pub(super) fn serve(listen: SocketAddr, proxied: bool, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    let acceptor = tls.map(TlsAcceptor::from);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(session(stream, proxied, acceptor.clone()));
        }
    })
}

async fn session(mut stream: TcpStream, proxied: bool, acceptor: Option<TlsAcceptor>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if proxied {
        let mut head = [0; PROXY_HEAD];
        stream.read_exact(&mut head).await?;
        let length = u16::from_be_bytes([head[PROXY_HEAD - 2], head[PROXY_HEAD - 1]]);
        stream.read_exact(&mut vec![0; length.into()]).await?;
    }
    stream.write_all(b"220 backend.example ESMTP\r\n").await?;
    if let (Ended::StartTls, Some(acceptor)) = (talk(&mut stream, acceptor.is_some()).await?, acceptor) {
        talk(&mut acceptor.accept(stream).await?, false).await?;
    }
    Ok(())
}

/// Answers commands until the client leaves, or wants TLS.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, starttls: bool) -> io::Result<Ended> {
    let mut input: Vec<u8> = Vec::with_capacity(READ_MAX);
    let mut output: Vec<u8> = Vec::new();
    let mut in_message = false;
    loop {
        let mut ended = None;
        while ended.is_none() {
            if in_message {
                // Nobody here sends anything behind a message before he has its reply.
                if !input.ends_with(END_OF_DATA) {
                    input.drain(..input.len().saturating_sub(END_OF_DATA.len() - 1));
                    break;
                }
                input.clear();
                in_message = false;
                output.extend_from_slice(b"250 2.0.0 Ok\r\n");
                continue;
            }
            let Some(end) = input.iter().position(|&byte| byte == b'\n') else { break };
            let verb: Vec<u8> = input.drain(..=end).take(4).collect();
            let reply: &[u8] = match verb.to_ascii_uppercase().as_slice() {
                b"EHLO" => {
                    output.extend_from_slice(b"250-backend.example\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n");
                    output.extend_from_slice(if starttls { b"250-STARTTLS\r\n" } else { b"" });
                    b"250-8BITMIME\r\n250-AUTH PLAIN\r\n250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"
                }
                b"STAR" => {
                    ended = Some(Ended::StartTls);
                    b"220 2.0.0 Go\r\n"
                }
                b"QUIT" => {
                    ended = Some(Ended::Over);
                    b"221 2.0.0 Bye\r\n"
                }
                b"DATA" => {
                    in_message = true;
                    b"354 Go\r\n"
                }
                b"XCLI" => b"220 backend.example ESMTP\r\n",
                b"AUTH" => b"235 2.7.0 Ok\r\n",
                b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" | b"HELO" => b"250 2.0.0 Ok\r\n",
                _ => b"500 5.5.1 What?\r\n",
            };
            output.extend_from_slice(reply);
        }
        stream.write_all(&output).await?;
        stream.flush().await?;
        output.clear();
        if let Some(ended) = ended {
            return Ok(ended);
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(Ended::Over);
        }
    }
}
