//! A terminal's content, with the colours that tmux writes (SGR of ECMA-48), as a page.

const COLOURS: [&str; 8] = ["#20242a", "#ff7b72", "#7ee787", "#f2cc60", "#79c0ff", "#d2a8ff", "#76e3ea", "#d5dae1"];

/// How text looks from here on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Look {
    bold: bool,
    dim: bool,
    reversed: bool,
    colour: Option<usize>,
}

pub(super) fn to_html(text: &str) -> String {
    let mut page = "<!DOCTYPE html><meta charset=\"utf-8\"><title>live view</title><style>body{margin:0;background:#12161b}\
                    pre{margin:0;padding:14px 18px;color:#d5dae1;font:15px/1.22 'DejaVu Sans Mono',monospace}</style><pre>"
        .to_owned();
    let mut look = Look::default();
    for (index, part) in text.trim_end().split("\x1b[").enumerate() {
        // What is before the first sequence has none.
        let shown = match part.split_once('m') {
            Some((codes, rest)) if index > 0 => {
                // Colours of the palette of 256 begin with the usual ones.
                let codes = codes.replace("38;5;", "3").replace("48;5;", "4");
                codes.split(';').for_each(|code| look.change(code));
                rest
            }
            _ => part,
        };
        look.write(shown, &mut page);
    }
    page + "</pre>"
}

impl Look {
    fn change(&mut self, code: &str) {
        match code.parse::<usize>().unwrap_or(0) {
            0 => *self = Self::default(),
            1 => self.bold = true,
            2 => self.dim = true,
            7 => self.reversed = true,
            22 => (self.bold, self.dim) = (false, false),
            27 => self.reversed = false,
            code @ 30..=37 => self.colour = Some(code - 30),
            39 => self.colour = None,
            _ => {}
        }
    }

    fn write(self, text: &str, page: &mut String) {
        if text.is_empty() {
            return;
        }
        let colour = self.colour.map_or("#d5dae1", |colour| COLOURS[colour]);
        let (front, back) = if self.reversed { ("#12161b", colour) } else { (colour, "transparent") };
        let weight = if self.bold { "bold" } else { "normal" };
        let opacity = if self.dim { "0.65" } else { "1" };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        page.push_str(&format!(
            "<span style=\"color:{front};background:{back};font-weight:{weight};opacity:{opacity}\">{text}</span>"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_spans_and_text_stays_text() {
        let page = to_html("a<b\x1b[1;38;5;1mred\x1b[0m\x1b[7mback\x1b[m");
        assert!(page.contains(">a&lt;b</span>"), "{page}");
        assert!(page.contains("color:#ff7b72;background:transparent;font-weight:bold;opacity:1\">red<"), "{page}");
        assert!(page.contains("color:#12161b;background:#d5dae1;font-weight:normal;opacity:1\">back<"), "{page}");
    }
}
