//! Service records (RFC 9460), without what would lead around the gateway.

use hickory_proto::rr::{
    RData,
    rdata::{
        SVCB,
        svcb::{SvcParamKey, SvcParamValue},
    },
};

/// Takes out keys for encrypted names, as the gateway reads the name that a TLS connection is for, and addresses, as
/// it learns those from the records of addresses alone. `false` if the record is of no use without them.
pub(super) fn strip(data: &mut RData) -> bool {
    match data {
        RData::SVCB(service) => strip_service(service),
        RData::HTTPS(service) => strip_service(&mut service.0),
        _ => true,
    }
}

fn strip_service(service: &mut SVCB) -> bool {
    let needed = service.svc_params.iter().any(|(_, value)| match value {
        SvcParamValue::Mandatory(keys) => keys.0.iter().copied().any(is_taken_out),
        _ => false,
    });
    service.svc_params.retain(|(key, _)| !is_taken_out(*key));
    // A client that does not know a key which is mandatory has to pass over the record.
    !needed
}

fn is_taken_out(key: SvcParamKey) -> bool {
    matches!(key, SvcParamKey::EchConfigList | SvcParamKey::Ipv4Hint | SvcParamKey::Ipv6Hint)
}
