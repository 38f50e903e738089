//! The limits of an instance.

use super::Found;
use crate::grants::{ByteSize, Limits, TimeSpan};

pub(super) fn compare(asked: &Limits, most: &Limits, found: &mut Found<'_>) {
    let Limits {
        memory,
        call_timeout,
        total_timeout,
        table_elements,
        instances,
        resources,
        output_rows,
        output_bytes,
        at_once,
        entries,
    } = asked;
    found.at_most::<ByteSize>("limits.memory", *memory, most.memory);
    found.at_most::<TimeSpan>("limits.call_timeout", *call_timeout, most.call_timeout);
    found.at_most::<TimeSpan>("limits.total_timeout", *total_timeout, most.total_timeout);
    found.at_most(
        "limits.table_elements",
        *table_elements,
        most.table_elements,
    );
    found.at_most("limits.instances", *instances, most.instances);
    found.at_most("limits.resources", *resources, most.resources);
    found.at_most("limits.output_rows", *output_rows, most.output_rows);
    found.at_most::<ByteSize>("limits.output_bytes", *output_bytes, most.output_bytes);
    found.at_most("limits.at_once", *at_once, most.at_once);
    found.at_most("limits.entries", *entries, most.entries);
}
