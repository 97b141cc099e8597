//! Records that are objects, written member by member into a line. By hand, since every request has one, and serde's
//! floats and names were a good part of what telling of it costs.

use std::net::IpAddr;
use std::time::Duration;

/// The name of a member as it is written, with the comma before it. Made by [`name!`].
#[derive(Clone, Copy)]
pub struct Name(pub(crate) &'static str);

/// A name, put together when this is compiled: there are dozens in a line.
macro_rules! name {
    ($name:literal) => {
        $crate::observe::object::Name(concat!(",\"", $name, "\":"))
    };
}
pub(crate) use name;

/// An object that is being written: a comma before each member, as something stands before the first one.
pub struct Object<'o>(&'o mut Vec<u8>);

impl<'o> Object<'o> {
    /// Goes on with an object that was begun.
    pub fn within(line: &'o mut Vec<u8>) -> Self {
        Self(line)
    }

    fn name(&mut self, name: Name) {
        self.0.extend_from_slice(name.0.as_bytes());
    }

    /// A text, if there is one.
    pub fn text<'v>(&mut self, name: Name, value: impl Into<Option<&'v str>>) {
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
    pub fn number(&mut self, name: Name, value: impl Into<Option<u64>>) {
        let Some(value) = value.into() else { return };
        self.name(name);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A share of one, if there is any.
    pub fn share(&mut self, name: Name, value: Option<f64>) {
        let Some(value) = value else { return };
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.0, &value);
    }

    /// A time in milliseconds to three places, if there is one.
    pub fn milliseconds(&mut self, name: Name, value: impl Into<Option<Duration>>) {
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
    pub fn address(&mut self, name: Name, value: Option<IpAddr>) {
        self.name(name);
        match value {
            Some(address) => {
                self.0.push(b'"');
                spell(address, |part| self.0.extend_from_slice(part.as_bytes()));
                self.0.push(b'"');
            }
            None => self.0.extend_from_slice(b"null"),
        }
    }
}

/// Hands on how an address is written, in parts; formatting takes several times as long for the common ones.
pub fn spell(address: IpAddr, mut part: impl FnMut(&str)) {
    let IpAddr::V4(address) = address else { return part(&address.to_string()) };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            part(".");
        }
        part(itoa::Buffer::new().format(octet));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_json() {
        let mut line = b"{\"ts\":1".to_vec();
        let mut object = Object::within(&mut line);
        object.text(name!("plain"), "é");
        object.text(name!("odd"), "a\"b\\c\nd");
        object.text(name!("none"), None);
        object.number(name!("number"), u64::MAX);
        object.number(name!("nothing"), None);
        object.share(name!("share"), Some(0.25));
        for (name, nanos) in [
            (name!("long"), 12_345_678_901),
            (name!("short"), 1_000),
            (name!("zero"), 0),
            (name!("up"), 1_999_999),
            (name!("half"), 20_000_500),
        ] {
            object.milliseconds(name, Duration::from_nanos(nanos));
        }
        object.address(name!("v4"), Some([10, 0, 255, 1].into()));
        object.address(name!("v6"), Some("2001:db8::1".parse().unwrap()));
        object.address(name!("nobody"), None);
        line.push(b'}');
        let expected = "{\"ts\":1,\"plain\":\"é\",\"odd\":\"a\\\"b\\\\c\\nd\",\"number\":18446744073709551615,\"share\":0.25,\"long\":12345.679,\
            \"short\":0.001,\"zero\":0.000,\"up\":2.000,\"half\":20.001,\"v4\":\"10.0.255.1\",\"v6\":\"2001:db8::1\",\"nobody\":null}";
        assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
        assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
    }
}
