//! In place of `loader` where there is no BPF: the same functions, and one sentence.

use std::convert::Infallible;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Xdp;
use crate::verdicts::Verdicts;

use super::{Attached, KernelError, Pins, Settings, SourceAccount, Totals, Wanted};

/// Nobody has one here.
#[derive(Debug)]
pub struct Program {
    nobody: Infallible,
}

impl Program {
    /// Cannot: says that there is no BPF here.
    pub fn load(_: Option<&Pins>) -> Result<Self, KernelError> {
        Err(KernelError::Unsupported("this is another system".to_owned()))
    }

    /// See the Linux side.
    pub fn configure(&mut self, _: &Settings) -> Result<(), KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn set_ports(&mut self, _: &[u16]) -> Result<(), KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn set_interface(&mut self, _: u32, _: u32) -> Result<(), KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn attach(&mut self, _: &str, _: Wanted, _: bool) -> Result<Attached, KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn detach(self) -> Result<(), KernelError> {
        match self.nobody {}
    }
}

/// Nobody has one here.
#[derive(Debug)]
pub struct Steering {
    /// What the kernel side counted.
    pub reader: Reader,
}

/// Nobody has one here.
#[derive(Debug)]
pub struct Reader {
    nobody: Infallible,
}

impl Steering {
    /// See the Linux side.
    pub fn start(program: &Program, _: &Arc<Verdicts>, _: &Xdp, _: &[IpNet]) -> Result<Self, KernelError> {
        match program.nobody {}
    }

    /// See the Linux side.
    pub fn failures(&self) -> u64 {
        match self.reader.nobody {}
    }
}

impl Reader {
    /// See the Linux side.
    pub fn totals(&self) -> Result<Totals, KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn sources(&self) -> Result<Vec<SourceAccount>, KernelError> {
        match self.nobody {}
    }

    /// See the Linux side.
    pub fn dropped(&self, _: IpNet) -> Result<u64, KernelError> {
        match self.nobody {}
    }
}
