//! The balloon: what the guest gives up of its memory, in words to QEMU.

use serde_json::json;

use super::qmp::Qmp;
use crate::{ControlError, MemorySize};

/// Asks the guest to keep no more than `target` for itself, or lets it have that much again.
pub(super) async fn ask(qmp: &Qmp, target: MemorySize) -> Result<(), ControlError> {
    qmp.execute_with("balloon", json!({ "value": target.bytes() })).await.map(drop)
}

/// How much the guest has now, of all that its machine has, in bytes.
pub(super) async fn left(qmp: &Qmp, all: MemorySize) -> Result<u64, ControlError> {
    let command = "query-balloon";
    let answer = qmp.execute(command).await?;
    let actual = answer["actual"].as_u64().ok_or(ControlError::Malformed { command })?;
    Ok(actual.min(all.bytes()))
}
