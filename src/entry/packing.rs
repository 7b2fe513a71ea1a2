//! Fields in memory of their own.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

/// Moves the values of fields into one piece of memory, which nothing else shares.
///
/// Values that come from a connection are corners of the buffer that it was read into, which stays
/// as long as one of them does: many times the memory that is accounted for.
pub(crate) fn pack(fields: &mut HeaderMap) {
    let length = fields.values().map(HeaderValue::len).sum();
    let mut memory = None;
    for value in fields.values_mut() {
        let is_sensitive = value.is_sensitive();
        *value = common(value.as_bytes()).unwrap_or_else(|| {
            let memory = memory.get_or_insert_with(|| BytesMut::with_capacity(length));
            memory.extend_from_slice(value.as_bytes());
            let copy = HeaderValue::from_maybe_shared(memory.split().freeze());
            copy.expect("these bytes are a value's")
        });
        value.set_sensitive(is_sensitive);
    }
}

/// Returns a value that many responses have: it takes no memory, and a hit clones it at no cost.
fn common(value: &[u8]) -> Option<HeaderValue> {
    let value = match value {
        b"" => "",
        b"0" => "0",
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
    fn packed_fields_are_the_same_and_keep_nothing_of_where_they_came_from() {
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
        let before = fields.clone();
        pack(&mut fields);
        assert_eq!(fields, before);
        assert!(fields["x-name"].is_sensitive() && !fields["x-other"].is_sensitive());
        drop(before);
        assert!(buffer.is_unique());
    }
}
