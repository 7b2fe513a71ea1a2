//! Fields in memory of their own.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

/// Copies the values of fields into one piece of memory.
///
/// Values that come from a connection are corners of the buffer that it was read into, which stays
/// as long as one of them does: many times the memory that is accounted for.
pub(crate) struct Packing {
    memory: Option<BytesMut>,
    length: usize,
}

impl Packing {
    /// Prepares for the values of these fields.
    pub(crate) fn new(fields: &HeaderMap) -> Self {
        Self {
            memory: None,
            length: fields.values().map(HeaderValue::len).sum(),
        }
    }

    pub(crate) fn copy(&mut self, value: &HeaderValue) -> HeaderValue {
        let mut copy = common(value.as_bytes()).unwrap_or_else(|| self.put(value));
        copy.set_sensitive(value.is_sensitive());
        copy
    }

    fn put(&mut self, value: &HeaderValue) -> HeaderValue {
        let memory = || BytesMut::with_capacity(self.length);
        let memory = self.memory.get_or_insert_with(memory);
        memory.extend_from_slice(value.as_bytes());
        HeaderValue::from_maybe_shared(memory.split().freeze()).expect("these bytes are a value's")
    }
}

/// Copies fields into memory of their own.
pub(crate) fn packed(fields: &HeaderMap) -> HeaderMap {
    let mut packing = Packing::new(fields);
    let lines = fields.iter();
    lines
        .map(|(name, value)| (name.clone(), packing.copy(value)))
        .collect()
}

/// Returns a value that many responses have: it takes no memory, and a hit clones it at no cost.
fn common(value: &[u8]) -> Option<HeaderValue> {
    let value = match value {
        b"*" => "*",
        b"br" => "br",
        b"gzip" => "gzip",
        b"zstd" => "zstd",
        b"bytes" => "bytes",
        b"nosniff" => "nosniff",
        b"no-cache" => "no-cache",
        b"identity" => "identity",
        b"accept-encoding" => "accept-encoding",
        b"Accept-Encoding" => "Accept-Encoding",
        b"application/grpc" => "application/grpc",
        b"application/json" => "application/json",
        b"application/octet-stream" => "application/octet-stream",
        b"text/html; charset=utf-8" => "text/html; charset=utf-8",
        b"text/plain; charset=utf-8" => "text/plain; charset=utf-8",
        _ => return None,
    };
    Some(HeaderValue::from_static(value))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_copy_is_the_same_and_keeps_nothing_of_where_it_came_from() {
        let buffer = Bytes::from([b"a\xff\t".as_slice(), &[b'x'; 8192]].concat());
        let mut fields = HeaderMap::new();
        for value in [
            buffer.slice(..3),
            buffer.slice(3..9),
            Bytes::new(),
            "gzip".into(),
        ] {
            let value = HeaderValue::from_maybe_shared(value).unwrap();
            fields.append("x-name", value.clone());
            fields.insert("x-other", value);
        }
        fields.get_mut("x-name").unwrap().set_sensitive(true);
        let copy = packed(&fields);
        assert_eq!(copy, fields);
        assert!(copy["x-name"].is_sensitive() && !copy["x-other"].is_sensitive());
        drop(fields);
        assert!(buffer.is_unique());
    }
}
