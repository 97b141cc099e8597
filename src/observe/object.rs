//! Records that are objects, written member by member into a line. By hand, since every request has one, and serde takes
//! twice as long for what is a dozen short texts and numbers.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// An object that is being written: a comma before each member, as something stands before the first one.
pub struct Object<'o>(&'o mut Vec<u8>);

impl<'o> Object<'o> {
    /// Goes on with an object that was begun.
    pub fn within(line: &'o mut Vec<u8>) -> Self {
        Self(line)
    }

    fn name(&mut self, name: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A text, if there is one.
    pub fn text<'v>(&mut self, name: &'static str, value: impl Into<Option<&'v str>>) {
        let Some(value) = value.into() else { return };
        self.name(name);
        let is_special = |special: bool, byte: &u8| special | matches!(byte, ..b' ' | b'"' | b'\\');
        if value.as_bytes().iter().fold(false, is_special) {
            let _ = serde_json::to_writer(&mut *self.0, value);
            return;
        }
        self.0.push(b'"');
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'"');
    }

    /// A whole number, if there is one.
    pub fn number(&mut self, name: &'static str, value: impl Into<Option<u64>>) {
        let Some(value) = value.into() else { return };
        self.name(name);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A share of one, if there is any.
    pub fn share(&mut self, name: &'static str, value: Option<f64>) {
        let Some(value) = value else { return };
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.0, &value);
    }

    /// A time in milliseconds to three places, if there is one.
    pub fn milliseconds(&mut self, name: &'static str, value: impl Into<Option<Duration>>) {
        let Some(value) = value.into() else { return };
        self.name(name);
        let micros = (value + Duration::from_nanos(500)).as_micros();
        let thousandths = u16::try_from(micros % 1000).unwrap_or_default();
        self.0.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
        self.0.push(b'.');
        // The one in front keeps the zeros, and is cut off.
        self.0.extend_from_slice(&itoa::Buffer::new().format(1000 + thousandths).as_bytes()[1..]);
    }

    /// An address; `null` where there is none.
    pub fn address(&mut self, name: &'static str, value: Option<IpAddr>) {
        self.name(name);
        let _ = match value {
            Some(IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                let mut digits = [(); 4].map(|()| itoa::Buffer::new());
                for (at, (octet, digits)) in [a, b, c, d].into_iter().zip(&mut digits).enumerate() {
                    self.0.push(if at == 0 { b'"' } else { b'.' });
                    self.0.extend_from_slice(digits.format(octet).as_bytes());
                }
                self.0.write_all(b"\"")
            }
            Some(IpAddr::V6(address)) => write!(self.0, "\"{address}\""),
            None => self.0.write_all(b"null"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_json() {
        let mut line = b"{\"ts\":1".to_vec();
        let mut object = Object::within(&mut line);
        object.text("plain", "é");
        object.text("odd", "a\"b\\c\nd");
        object.text("none", None);
        object.number("number", u64::MAX);
        object.number("nothing", None);
        object.share("share", Some(0.25));
        for (name, nanos) in [("long", 12_345_678_901), ("short", 1_000), ("zero", 0), ("up", 1_999_999), ("half", 20_000_500)] {
            object.milliseconds(name, Duration::from_nanos(nanos));
        }
        object.address("v4", Some([10, 0, 255, 1].into()));
        object.address("v6", Some("2001:db8::1".parse().unwrap()));
        object.address("nobody", None);
        line.push(b'}');
        let expected = "{\"ts\":1,\"plain\":\"é\",\"odd\":\"a\\\"b\\\\c\\nd\",\"number\":18446744073709551615,\"share\":0.25,\"long\":12345.679,\
            \"short\":0.001,\"zero\":0.000,\"up\":2.000,\"half\":20.001,\"v4\":\"10.0.255.1\",\"v6\":\"2001:db8::1\",\"nobody\":null}";
        assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
        assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
    }
}
