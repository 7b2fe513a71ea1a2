//! Where a reply ends (RESP 2 and 3).
//!
//! Replies are told apart without being read: what a hit needs of them is sliced out of the bytes
//! received, and all else is left to the client's parser.

use std::io;

/// What stands at the beginning of bytes received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// One reply, so many bytes long.
    Whole(usize),
    /// A part of one, which has at least so many bytes.
    Part(usize),
}

/// A longer line is no server's.
const LONGEST_LINE: usize = 64 << 10;

/// Measures the reply at the beginning.
///
/// # Errors
///
/// When there is no reply of Redis.
pub(super) fn measure(bytes: &[u8]) -> io::Result<Frame> {
    let mut end = 0_usize;
    let mut wanted = 1_u64;
    while wanted > 0 {
        wanted -= 1;
        let rest = bytes.get(end..).unwrap_or_default();
        let Some((head, after)) = line(rest)? else {
            return Ok(Frame::Part(bytes.len().saturating_add(1)));
        };
        end = end.saturating_add(after);
        let (kind, number) = head.split_first().ok_or_else(nonsense)?;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'!' | b'=' => {
                let Some(length) = length(number)? else {
                    continue;
                };
                let content = usize::try_from(length).ok().and_then(|length| {
                    let end = end.checked_add(length)?;
                    end.checked_add(END.len())
                });
                end = content.ok_or_else(nonsense)?;
            }
            b'*' | b'~' | b'>' => wanted = more(wanted, length(number)?, 1)?,
            b'%' => wanted = more(wanted, length(number)?, 2)?,
            // What it says stands before the reply.
            b'|' => wanted = more(wanted, length(number)?, 2)?.saturating_add(1),
            _ => return Err(nonsense()),
        }
        if end > bytes.len() {
            return Ok(Frame::Part(end));
        }
    }
    Ok(Frame::Whole(end))
}

/// Takes the string at the beginning off a list of them; `None` within stands for what is none.
///
/// Returns `None` if there is no string.
pub(super) fn string(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (head, after) = line(bytes).ok()??;
    let rest = bytes.get(after..)?;
    let (kind, number) = head.split_first()?;
    match kind {
        b'_' => Some((None, rest)),
        b'$' => match length(number).ok()? {
            None => Some((None, rest)),
            Some(length) => {
                let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                Some((Some(content), rest.strip_prefix(END)?))
            }
        },
        _ => None,
    }
}

/// Takes the head off a list; returns what is in it.
pub(super) fn list(bytes: &[u8]) -> Option<&[u8]> {
    let (head, after) = line(bytes).ok()??;
    head.starts_with(b"*").then(|| bytes.get(after..))?
}

const END: &[u8] = b"\r\n";

/// Returns the line at the beginning, and where the next one begins; `None` if its end is missing.
fn line(bytes: &[u8]) -> io::Result<Option<(&[u8], usize)>> {
    let searched = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    match searched.windows(END.len()).position(|two| two == END) {
        Some(end) => Ok(bytes
            .get(..end)
            .map(|line| (line, end.saturating_add(END.len())))),
        None if searched.len() < LONGEST_LINE => Ok(None),
        None => Err(nonsense()),
    }
}

/// Reads a length; `None` for -1, which stands for what is not there.
fn length(digits: &[u8]) -> io::Result<Option<u64>> {
    if digits == b"-1" {
        return Ok(None);
    }
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(nonsense());
    }
    let digits = digits.iter().map(|digit| u64::from(digit & 15));
    Ok(Some(digits.fold(0, |number, digit| {
        number.saturating_mul(10).saturating_add(digit)
    })))
}

/// Adds the members of a list to what is wanted.
fn more(wanted: u64, length: Option<u64>, each: u64) -> io::Result<u64> {
    /// More members have no reply that is ever asked for.
    const MOST: u64 = 1 << 24;
    let members = length.unwrap_or_default().saturating_mul(each);
    let wanted = wanted.saturating_add(members);
    (wanted <= MOST).then_some(wanted).ok_or_else(nonsense)
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no reply of Redis")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a server sends, and no attribute, which the client's parser takes for two replies.
    fn any_reply() -> impl Strategy<Value = Vec<u8>> {
        let text = "[ -~]{0,20}";
        let leaf = prop_oneof![
            text.prop_map(|text| format!("+{text}\r\n").into_bytes()),
            text.prop_map(|text| format!("-ERR {text}\r\n").into_bytes()),
            any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
            any::<bool>().prop_map(|yes| format!("#{}\r\n", if yes { 't' } else { 'f' }).into()),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| string_of(&bytes)),
            Just(b"$-1\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
            Just(b"_\r\n".to_vec()),
        ];
        leaf.prop_recursive(3, 24, 6, |member| {
            prop_oneof![
                prop::collection::vec(member.clone(), 0..6).prop_map(|m| list_of('*', 1, &m)),
                prop::collection::vec(member.clone(), 0..6).prop_map(|m| list_of('~', 1, &m)),
                prop::collection::vec((member.clone(), member), 0..3).prop_map(|pairs| {
                    let members = pairs.into_iter().flat_map(|(key, value)| [key, value]);
                    list_of('%', 2, &members.collect::<Vec<_>>())
                }),
            ]
        })
    }

    fn string_of(bytes: &[u8]) -> Vec<u8> {
        let head = format!("${}\r\n", bytes.len());
        [head.as_bytes(), bytes, END].concat()
    }

    fn list_of(kind: char, each: usize, members: &[Vec<u8>]) -> Vec<u8> {
        let head = format!("{kind}{}\r\n", members.len() / each);
        [head.into_bytes(), members.concat()].concat()
    }

    #[test]
    fn what_is_said_about_a_reply_belongs_to_it() {
        let reply = b"|1\r\n+ttl\r\n:9\r\n$1\r\na\r\n+OK\r\n";
        assert_eq!(measure(reply).unwrap(), Frame::Whole(reply.len() - 5));
    }

    #[test]
    fn what_no_server_says_is_refused() {
        for bytes in [
            "\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "$\r\n",
            "$-2\r\n",
            "$+1\r\na\r\n",
            "$?\r\n",
            "$1e3\r\n",
            "$18446744073709551615\r\n",
            "*16777217\r\n",
            "*2\r\n:1\r\nx\r\n",
        ] {
            let error = measure(bytes.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes}");
        }
        let endless = vec![b'+'; LONGEST_LINE];
        assert!(measure(&endless).is_err());
    }

    #[test]
    fn only_strings_are_taken_for_strings() {
        for bytes in ["", "$3\r\nab", "$1\r\nabc", ":1\r\n", "*0\r\n", "$x\r\n"] {
            assert_eq!(string(bytes.as_bytes()), None, "{bytes}");
        }
        assert_eq!(list(b"$1\r\na\r\n"), None);
    }

    proptest! {
        #[test]
        fn a_reply_is_as_long_as_the_client_finds_it(reply in any_reply(), behind: Vec<u8>) {
            let both = [reply.as_slice(), &behind].concat();
            prop_assert_eq!(measure(&both).unwrap(), Frame::Whole(reply.len()));
            prop_assert!(redis::parse_redis_value(&reply).is_ok());
        }

        #[test]
        fn a_part_is_told_from_a_whole_and_never_asks_for_more(
            reply in any_reply(),
            cut: prop::sample::Index,
        ) {
            let cut = cut.index(reply.len());
            let Frame::Part(least) = measure(&reply[..cut]).unwrap() else {
                panic!("{cut} of {} are no whole", reply.len());
            };
            prop_assert!(cut < least && least <= reply.len(), "{} at {}", least, cut);
        }

        #[test]
        fn strings_are_found_in_a_list(
            strings in prop::collection::vec(prop::option::of(any::<Vec<u8>>()), 0..6)
        ) {
            let members = strings.iter().map(|string| match string {
                Some(bytes) => string_of(bytes),
                None => b"$-1\r\n".to_vec(),
            });
            let reply = list_of('*', 1, &members.collect::<Vec<_>>());
            let mut rest = list(&reply).unwrap();
            for expected in &strings {
                let (found, after) = string(rest).unwrap();
                prop_assert_eq!(found, expected.as_deref());
                rest = after;
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_can_be_measured(bytes: Vec<u8>) {
            if let Ok(Frame::Whole(length)) = measure(&bytes) {
                prop_assert!(0 < length && length <= bytes.len());
            }
            let _ = (string(&bytes), list(&bytes));
        }
    }
}
