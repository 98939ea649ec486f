//! Runs a command around a whole run of `backup` or `push`.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::time::Duration;

use super::error::SourceError;
use crate::base::command::{
    CommandLine, SharedGroup, StdoutTo, Streams, in_memory, run_guarded, run_in,
};

/// A command around a whole run, with the run's state as its standard input.
pub(crate) struct RunHook<'a> {
    pub(crate) line: &'a CommandLine,
    pub(crate) input: &'a [u8],
    pub(crate) environment: &'a [(&'a str, &'a str)],
    pub(crate) timeout: Duration,
}

impl RunHook<'_> {
    /// Runs it. Returns the end of what it wrote. If this process must end, it is ended too.
    pub(crate) fn run(&self) -> Result<String, SourceError> {
        let streams = self.streams()?;
        let ran = run_guarded(self.line, streams, self.environment, self.timeout)?;
        Ok(ran.stderr)
    }

    /// Does the same for a process that is already ending.
    pub(crate) fn run_last(&self) -> Result<String, SourceError> {
        let group = SharedGroup::default();
        let streams = self.streams()?;
        let ran = run_in(&group, self.line, streams, self.environment, self.timeout)?;
        Ok(ran.stderr)
    }

    /// A file and no pipe, so that a command that does not read it cannot hold up the run.
    fn streams(&self) -> Result<Streams, SourceError> {
        let stored = (|| {
            let mut file = in_memory("sealift-hook")?;
            file.write_all(self.input)?;
            file.seek(SeekFrom::Start(0))?;
            Ok(file)
        })();
        let stored = stored.map_err(|source| SourceError::Start {
            line: self.line.brief(),
            source,
        });
        Ok(Streams {
            input: Some(stored?),
            stdout: StdoutTo::Kept,
        })
    }
}
