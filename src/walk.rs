//! placeholder
#[derive(Debug, Clone, Default)]
pub struct Filter {}
