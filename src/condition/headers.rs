//! Request headers as a CEL map that is never made: each is looked up when it is asked for.

use std::sync::{Arc, OnceLock};

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator, Sizer};
use cel::common::types::{CelInt, CelString, MAP_TYPE, Type};
use cel::common::value::{CowVal, Val};
use http::HeaderMap;

/// Headers by lower-case name; lines of one name are joined, as RFC 9110 §5.3 has it.
#[derive(Debug)]
pub struct Headers<'q> {
    map: &'q HeaderMap,
    /// The names, once somebody goes through them.
    names: OnceLock<Vec<CelString<'q>>>,
}

impl<'q> Headers<'q> {
    pub fn new(map: &'q HeaderMap) -> Self {
        Self { map, names: OnceLock::new() }
    }

    /// The value of a header.
    pub fn find(&self, name: &str) -> Option<CelString<'q>> {
        let mut lines = self.map.get_all(name).iter();
        match (lines.next()?, lines.next()) {
            (line, None) if line.to_str().is_ok() => line.to_str().ok().map(CelString::from),
            _ => {
                let lines = self.map.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
                Some(CelString::from(lines.collect::<Vec<_>>().join(", ")))
            }
        }
    }
}

impl Val for Headers<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self::new(self.map))
    }
}

impl Container for Headers<'_> {
    fn contains(&self, name: &dyn Val) -> Result<bool, ExecutionError> {
        // A name with a capital is none of these, whatever HTTP thinks of it: conditions read the same for every map.
        let is_there = |name: &CelString<'_>| !name.contains(|c: char| c.is_ascii_uppercase()) && self.map.contains_key(&**name);
        Ok(name.downcast_ref::<CelString>().is_some_and(is_there))
    }
}

impl Indexer for Headers<'_> {
    fn get<'b, 'v>(&'b self, name: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if !self.contains(name)? {
            let name = name.downcast_ref::<CelString>().map(|name| name.inner().to_owned()).unwrap_or_default();
            return Err(ExecutionError::NoSuchKey(Arc::new(name)));
        }
        let found = name.downcast_ref::<CelString>().and_then(|name| self.find(name));
        found.map(CowVal::owned).ok_or_else(|| ExecutionError::NoSuchKey(Arc::default()))
    }

    fn steal<'v>(self: Box<Self>, name: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(name).map(CowVal::into_owned)
    }
}

impl Sizer for Headers<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.map.keys_len()).unwrap_or(i64::MAX))
    }
}

impl Iterable for Headers<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        let names = self.names.get_or_init(|| self.map.keys().map(|name| CelString::from(name.as_str())).collect());
        Box::new(Names(names.iter()))
    }
}

struct Names<'b, 'q>(std::slice::Iter<'b, CelString<'q>>);

impl<'b, 'q: 'v, 'v> Iterator<'b, 'v> for Names<'b, 'q> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|name| name as &dyn Val)
    }
}
