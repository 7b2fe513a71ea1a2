//! Which of a cluster's slots a name is in.

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// Returns the slot of a name: by what stands between its first braces, if anything does.
pub(super) fn of(name: &[u8]) -> u16 {
    of_tag(between_braces(name).unwrap_or(name))
}

/// Returns the slot of all names with this hash tag.
pub(super) fn of_tag(tag: &[u8]) -> u16 {
    crc16(tag) % SLOTS
}

fn between_braces(name: &[u8]) -> Option<&[u8]> {
    let mut parts = name.splitn(2, |byte| *byte == b'{');
    let rest = parts.nth(1)?;
    let mut parts = rest.splitn(2, |byte| *byte == b'}');
    let tag = parts.next().filter(|tag| !tag.is_empty())?;
    parts.next().map(|_| tag)
}

/// CRC-16/XMODEM, which has the polynomial x¹⁶ + x¹² + x⁵ + 1, by whole bytes.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum: u16, byte| {
        let high = (sum >> 8) ^ u16::from(*byte);
        let high = high ^ (high >> 4);
        (sum << 8) ^ (high << 12) ^ (high << 5) ^ high
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (name, slot) in [
            (&b""[..], 0),
            (b"foo", 12_182),
            (b"{foo}", 12_182),
            (b"hc1:a:e:{foo}bar", 12_182),
            (b"x{foo}{bar}", 12_182),
            (b"{foo", of_tag(b"{foo")),
            (b"x}foo", of_tag(b"x}foo")),
            (b"foo{}{bar}", of_tag(b"foo{}{bar}")),
            (b"foo{{bar}}zap", of_tag(b"{bar")),
        ] {
            assert_eq!(of(name), slot, "{}", name.escape_ascii());
        }
    }
}
