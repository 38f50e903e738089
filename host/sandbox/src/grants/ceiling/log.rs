//! Lines of a log.

use super::Found;
use crate::grants::{ByteSize, LogGrant};

pub(super) fn compare(asked: &LogGrant, most: &LogGrant, found: &mut Found<'_>) {
    let LogGrant {
        level,
        bytes_per_second,
        message_bytes,
    } = asked;
    if *level > most.level {
        let name = |level| format!("{level:?}").to_lowercase();
        found.add("log.level", name(*level), name(most.level));
    }
    found.at_most::<ByteSize>(
        "log.bytes_per_second",
        *bytes_per_second,
        most.bytes_per_second,
    );
    found.at_most::<ByteSize>("log.message_bytes", *message_bytes, most.message_bytes);
}
