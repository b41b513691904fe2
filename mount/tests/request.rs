//! The parser of kernel requests is total: any bytes give an operation or an errno.

use flexfs_mount::fuse::init::Offer;
use flexfs_mount::fuse::request::{Header, Operation, parse, parse_whole};
use flexfs_wire::limits::FUSE_IO_BYTES_MAX;
use proptest::prelude::*;

/// A header with this opcode and extension length, in front of these bytes.
fn request(opcode: u32, extension: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&u32::try_from(40 + body.len()).expect("small").to_le_bytes());
    bytes.extend_from_slice(&opcode.to_le_bytes());
    bytes.extend_from_slice(&[7; 28]);
    bytes.extend_from_slice(&extension.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(body);
    bytes
}

/// What must hold of whatever was parsed.
fn check(operation: &Operation, payload_bytes: usize) {
    match operation {
        Operation::Write { size, .. } => assert!(*size <= payload_bytes),
        Operation::Read { size, .. } | Operation::ReadDir { size, .. } => assert!(*size <= FUSE_IO_BYTES_MAX),
        Operation::Forget { forgotten } => assert!(forgotten.len() <= payload_bytes / 16 + 1),
        Operation::SetXattr { name, value, .. } => assert!(name.len() + value.len() < payload_bytes),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok((_, operation)) = parse_whole(&bytes) {
            check(&operation, bytes.len());
        }
        let _ = Offer::parse(&bytes).map(|offer| offer.answer(true, true, true));
    }

    #[test]
    fn every_operation_takes_any_body(
        opcode in 0_u32..60,
        extension in prop_oneof![Just(0_u16), 0..8_u16, any::<u16>()],
        body in prop::collection::vec(prop_oneof![Just(0_u8), Just(b'/'), any::<u8>()], 0..300),
    ) {
        if let Ok((_, operation)) = parse_whole(&request(opcode, extension, &body)) {
            check(&operation, body.len());
        }
    }

    #[test]
    fn ring_requests_are_parsed_or_refused(
        opcode in 0_u32..60,
        op in prop::array::uniform32(any::<u8>()),
        payload in prop::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), any::<u8>()], 0..600),
    ) {
        let header = Header::parse(&request(opcode, 0, &[])).expect("a header");
        let op = [op, op, op, op].concat();
        if let Ok(operation) = parse(&header, &op, &payload) {
            check(&operation, payload.len());
        }
    }
}
