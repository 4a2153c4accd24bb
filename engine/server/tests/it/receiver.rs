//! As much of a receiver as several tests need.

use std::io::BufRead;

/// Reads one request to its end and answers its `webhook-id`; `None` when the
/// connection ends.
pub(crate) fn read_request(from: &mut impl BufRead) -> Option<String> {
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line == "\r\n" {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "webhook-id" => value.clone_into(&mut id),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    from.read_exact(&mut vec![0; length]).ok()?;
    Some(id)
}
