//! Keys of encrypted volumes, as admin keeps them: under a secret that it never sees.

use flexfs_wire::cipher::WrappedKey;

use crate::fields::Fields;
use crate::problem::Problem;

/// Name of the field that holds one; the audit log leaves its value out.
pub(crate) const FIELD: &str = "wrappedKey";

/// The field of a body, its costs and lengths checked.
pub(crate) fn field(fields: &mut Fields) -> Result<Option<WrappedKey>, Problem> {
    let Some(key) = fields.object::<WrappedKey>(FIELD)? else { return Ok(None) };
    key.check().map_err(|error| Problem::field(FIELD, error.to_string()))?;
    Ok(Some(key))
}

/// As it is in its column.
pub(crate) fn to_column(key: &WrappedKey) -> String {
    serde_json::to_string(key).unwrap_or_default()
}
