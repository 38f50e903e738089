//! Tensor programs.

use super::Found;
use crate::grants::{ByteSize, ComputeGrant, TimeSpan};

pub(super) fn compare(asked: &ComputeGrant, most: &ComputeGrant, found: &mut Found<'_>) {
    let ComputeGrant {
        memory,
        time,
        programs,
        handles,
        flops,
        devices,
    } = asked;
    found.at_most::<ByteSize>("compute.memory", *memory, most.memory);
    found.at_most::<TimeSpan>("compute.time", *time, most.time);
    found.at_most("compute.programs", *programs, most.programs);
    found.at_most("compute.handles", *handles, most.handles);
    found.at_most("compute.flops", *flops, most.flops);
    if !devices.iter().all(|device| most.devices.contains(device)) {
        found.add("compute.devices", asked.device_names(), most.device_names());
    }
}
