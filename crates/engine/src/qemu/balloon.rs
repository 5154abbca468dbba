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
    // It is the guest's word.
    let actual = answer["actual"].as_i64().ok_or(ControlError::Malformed { command })?;
    Ok(u64::try_from(actual).unwrap_or(0).min(all.bytes()))
}
