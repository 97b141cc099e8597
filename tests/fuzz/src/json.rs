//! JSON (RFC 8259), read strictly and in a way of its own, for the gateway's reading to be compared with. Members keep
//! their order and their repetitions, because readers differ in which one they take.

/// One JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    /// A surrogate without its partner is read as U+FFFD, as Go does.
    Text(String),
    Null,
    /// A number, `true` or `false`: nothing the gateway judges.
    Other,
}

/// Which of several members of a name a reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    First,
    Last,
    /// The last one whatever its case, as Go's `encoding/json` does; U+017F is an `s` to it and U+212A a `k`.
    LastFolded,
}

impl Json {
    /// The whole of `bytes` as one value.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { text: std::str::from_utf8(bytes).ok()?.as_bytes(), at: 0 };
        let value = reader.value()?;
        (reader.at == bytes.len()).then_some(value)
    }

    pub fn get(&self, name: &str, taking: Taking) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let mut named = members.iter().filter(|(key, _)| match taking {
            Taking::First | Taking::Last => key == name,
            Taking::LastFolded => folds_to(key, name),
        });
        let found = if taking == Taking::First { named.next() } else { named.next_back() };
        found.map(|(_, value)| value)
    }

    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

fn folds_to(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

struct Reader<'b> {
    text: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A value and the white space around it.
    fn value(&mut self) -> Option<Json> {
        self.space();
        let value = match self.peek()? {
            b'{' => self.list(b'{', b'}', Self::member).map(Json::Object),
            b'[' => self.list(b'[', b']', Self::value).map(Json::Array),
            b'"' => self.string().map(Json::Text),
            b't' => self.word("true").map(|()| Json::Other),
            b'f' => self.word("false").map(|()| Json::Other),
            b'n' => self.word("null").map(|()| Json::Null),
            _ => self.number().map(|()| Json::Other),
        };
        self.space();
        value
    }

    fn list<T>(&mut self, open: u8, close: u8, item: fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.take(open)?;
        self.space();
        let mut items = Vec::new();
        if self.take(close).is_some() {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(b',').is_none() {
                return self.take(close).map(|()| items);
            }
        }
    }

    fn member(&mut self) -> Option<(String, Json)> {
        self.space();
        let name = self.string()?;
        self.space();
        self.take(b':')?;
        Some((name, self.value()?))
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut units: Vec<u16> = Vec::new();
        loop {
            // The text is UTF-8 and every stop is ASCII, so a run of plain characters is cut at their borders.
            let run = self.text[self.at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
            units.extend(std::str::from_utf8(&self.text[self.at..self.at + run]).ok()?.encode_utf16());
            self.at += run;
            match self.peek()? {
                b'"' => break self.at += 1,
                b'\\' => units.push(self.escape()?),
                _ => return None,
            }
        }
        Some(String::from_utf16_lossy(&units))
    }

    fn escape(&mut self) -> Option<u16> {
        self.take(b'\\')?;
        let kind = self.peek()?;
        self.at += 1;
        Some(match kind {
            b'"' | b'\\' | b'/' => u16::from(kind),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                self.at += 4;
                u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            _ => return None,
        })
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        (digits > 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_read() {
        for text in [r#"{"a":[1,-0.5e+3,true,false,null,"\u0041\n"],"b":{}}"#, " [ ] ", "0", r#""\ud83d\ude00\ud800""#] {
            assert!(Json::read(text.as_bytes()).is_some(), "{text}");
        }
        for text in [
            "",
            "01",
            "1.",
            ".5",
            "+1",
            "nul",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u+041\"",
            "1 2",
            "\u{feff}1",
            "[",
            "\u{b}1",
        ] {
            assert_eq!(Json::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn readers_take_the_member_they_take() {
        let json = Json::read(r#"{"task":"1","ta\u0073k":"2","ta\u017f\u212a":"3","tas":"4"}"#.as_bytes()).unwrap();
        let taken = |taking| json.get("task", taking).and_then(Json::text);
        assert_eq!([Taking::First, Taking::Last, Taking::LastFolded].map(taken), [Some("1"), Some("2"), Some("3")]);
    }
}
