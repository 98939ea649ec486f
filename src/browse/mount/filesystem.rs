//! Answers the kernel's requests. What needs the target is answered later, on the runtime; the
//! threads that receive requests never wait for it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr,
    Request,
};

use super::attributes::is_root;
use super::files::MountedFile;
use super::inode::MountInode;
use super::listing::{Listing, SEALED_TTL, TOP_TTL, attributes_in, list_sealed, list_top};
use super::reading::{fetch_ahead, open_sealed, read_sealed};
use super::snapshots::EnteredSnapshot;
use super::state::MountState;
use crate::browse::content_map::ContentMap;

/// Bytes that the kernel may read ahead.
pub(super) const KERNEL_AHEAD_BYTES: u32 = 1 << 20;
/// Requests without a waiting process, such as those to read ahead, at once.
const BACKGROUND_REQUESTS: u16 = 32;
/// Bytes of a block in the statistics of the file system.
const STATISTICS_BLOCK: u32 = 4096;

/// The file system of a mount.
pub(super) struct SealedFilesystem(pub(super) Arc<MountState>);

impl SealedFilesystem {
    fn state(&self) -> &Arc<MountState> {
        self.0.note_request();
        &self.0
    }

    /// Calls `then` once the list of snapshots is not old.
    fn with_list(&self, then: impl FnOnce(&Arc<MountState>) + Send + 'static) {
        let state = self.state();
        if !state.snapshots.is_stale() {
            return then(state);
        }
        let state = Arc::clone(state);
        self.0.runtime.spawn(async move {
            state.snapshots.refresh().await;
            then(&state);
        });
    }

    fn list<L: Listing>(&self, pid: u32, inode: INodeNo, offset: u64, listing: L) {
        match MountInode::of(inode.0) {
            Some(MountInode::Sealed(slot, node)) => {
                self.state().within(pid, slot, move |state, entered| {
                    match entered {
                        Ok(entered) => list_sealed(state, entered, slot, node, (offset, listing)),
                        Err(errno) => listing.fail(errno),
                    };
                });
            }
            // A list that changes within one listing would skip or repeat names.
            Some(inode) if offset == 0 => {
                self.with_list(move |state| list_top(state, inode, offset, listing));
            }
            Some(inode) => list_top(self.state(), inode, offset, listing),
            None => listing.fail(Errno::ENOENT),
        }
    }
}

fn answer_entry(reply: ReplyEntry, ttl: Duration, attributes: Option<FileAttr>) {
    match attributes {
        Some(attributes) => reply.entry(&ttl, &attributes, Generation(0)),
        None => reply.error(Errno::ENOENT),
    }
}

/// Answers with `value`, or with its size if there is no room asked for.
fn answer_xattr(reply: ReplyXattr, room: u32, value: &[u8]) {
    match (room, u32::try_from(value.len())) {
        (0, Ok(bytes)) => reply.size(bytes),
        (room, Ok(bytes)) if bytes <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for SealedFilesystem {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = vec![
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ];
        if self.0.is_shared {
            // The kernel then checks the access lists of the snapshot, not only its modes.
            wanted.push(InitFlags::FUSE_POSIX_ACL);
        }
        for one in wanted {
            // Without it the mount works as well.
            let _ = config.add_capabilities(one);
        }
        if let Err(most) = config.set_max_readahead(KERNEL_AHEAD_BYTES) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND_REQUESTS);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match MountInode::of(parent.0) {
            Some(MountInode::Sealed(slot, directory)) => {
                let name = name.as_bytes().to_vec();
                let then = move |state: &Arc<MountState>, entered: Result<&Arc<_>, Errno>| {
                    let entered: &Arc<EnteredSnapshot> = match entered {
                        Ok(entered) => entered,
                        Err(errno) => return reply.error(errno),
                    };
                    let node = entered.tree.lookup(directory, &name);
                    let found = node.and_then(|node| attributes_in(state, entered, slot, node));
                    answer_entry(reply, SEALED_TTL, found);
                };
                self.state().within(request.pid(), slot, then);
            }
            Some(directory) => {
                let name = name.to_os_string();
                self.with_list(move |state| {
                    let entries = state.top_entries(directory).unwrap_or_default();
                    let mut named = entries.into_iter().filter(|one| *one.name == *name);
                    answer_entry(reply, TOP_TTL, named.next().map(|one| one.attributes));
                });
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match MountInode::of(inode.0) {
            Some(MountInode::Sealed(slot, node)) if !is_root(node) => {
                let then = move |state: &Arc<MountState>, entered: Result<&Arc<_>, Errno>| {
                    let found = entered.and_then(|entered| {
                        attributes_in(state, entered, slot, node).ok_or(Errno::ENOENT)
                    });
                    match found {
                        Ok(attributes) => reply.attr(&SEALED_TTL, &attributes),
                        Err(errno) => reply.error(errno),
                    }
                };
                self.state().within(request.pid(), slot, then);
            }
            Some(inode) => match self.state().top_attributes(inode) {
                Some(attributes) => reply.attr(&TOP_TTL, &attributes),
                None => reply.error(Errno::ENOENT),
            },
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        match MountInode::of(inode.0) {
            Some(MountInode::Sealed(slot, node)) => {
                self.state()
                    .within(request.pid(), slot, move |_, entered| match entered {
                        Ok(entered) => {
                            let entry = entered.tree.entry(node);
                            match entry.and_then(|entry| entry.target) {
                                Some(text) => reply.data(text),
                                None => reply.error(Errno::EINVAL),
                            }
                        }
                        Err(errno) => reply.error(errno),
                    });
            }
            Some(inode) => match self.state().link_text(inode) {
                Some(text) => reply.data(text.as_bytes()),
                None => reply.error(Errno::EINVAL),
            },
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        match MountInode::of(inode.0) {
            Some(MountInode::Sealed(slot, node)) => {
                let then =
                    move |state: &Arc<MountState>, entered: Result<&Arc<_>, Errno>| match entered
                        .and_then(|entered| open_sealed(entered, node))
                    {
                        Ok(file) => {
                            let handle = FileHandle(state.files.add(file));
                            reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
                        }
                        Err(errno) => reply.error(errno),
                    };
                self.state().within(request.pid(), slot, then);
            }
            Some(inode) => match self.state().text(inode) {
                Some(text) => {
                    let handle = FileHandle(self.0.files.add(MountedFile::Text(text)));
                    // Its size may change from one opening to the next.
                    reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO);
                }
                None => reply.error(Errno::EISDIR),
            },
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.state();
        let Some(file) = state.files.get(handle.0) else {
            return reply.error(Errno::EBADF);
        };
        let end = |size_of_file: u64| offset.saturating_add(size.into()).min(size_of_file);
        match &*file {
            MountedFile::Text(text) => {
                let end = end(text.len() as u64);
                let begin = offset.min(end);
                reply.data(&text[begin as usize..end as usize]);
            }
            MountedFile::Sealed(sealed) => {
                let range = offset..end(sealed.content.size());
                if range.start >= range.end {
                    return reply.data(&[]);
                }
                let _runtime = state.runtime.enter();
                fetch_ahead(state, &file, &range);
                let (pid, state) = (request.pid(), Arc::clone(state));
                tokio::spawn(read_sealed(state, Arc::clone(&file), range, pid, reply));
            }
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state().files.remove(handle.0);
        reply.ok();
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let file = self.state().files.get(handle.0);
        let (Some(file), Ok(offset)) = (file, u64::try_from(offset)) else {
            return reply.error(Errno::ENXIO);
        };
        let text_content;
        let content = match &*file {
            MountedFile::Sealed(sealed) => &sealed.content,
            MountedFile::Text(_) => {
                text_content = ContentMap::new(std::iter::empty());
                &text_content
            }
        };
        let found = match whence {
            libc::SEEK_DATA => content.next_data(offset),
            libc::SEEK_HOLE => content.next_hole(offset),
            _ => return reply.error(Errno::EINVAL),
        };
        match found.and_then(|found| i64::try_from(found).ok()) {
            Some(found) => reply.offset(found),
            None => reply.error(Errno::ENXIO),
        }
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let state = self.state();
        let flags = match MountInode::of(inode.0) {
            Some(MountInode::Sealed(..)) => {
                FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
            }
            _ => FopenFlags::empty(),
        };
        state.open_dirs.fetch_add(1, Ordering::Relaxed);
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list(request.pid(), inode, offset, reply);
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list(request.pid(), inode, offset, reply);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.state().open_dirs.fetch_sub(1, Ordering::Relaxed);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let list = self.state().snapshots.list();
        let totals = list.latest().map(|latest| latest.manifest.core.totals);
        let (bytes, entries) = totals.map_or((0, 0), |totals| (totals.bytes, totals.entries));
        let blocks = bytes.div_ceil(STATISTICS_BLOCK.into());
        let block = STATISTICS_BLOCK;
        reply.statfs(blocks, 0, 0, entries, 0, block, 255, block);
    }

    fn getxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        room: u32,
        reply: ReplyXattr,
    ) {
        let state = self.state();
        match MountInode::of(inode.0) {
            Some(MountInode::Sealed(slot, node))
                if !is_root(node) && state.view.shows_xattr(name.as_bytes()) =>
            {
                let name = name.as_bytes().to_vec();
                state.within(request.pid(), slot, move |_, entered| match entered {
                    Ok(entered) => {
                        let xattrs = entered.tree.entry(node).map(|entry| entry.xattrs());
                        let mut xattrs = xattrs.into_iter().flatten();
                        match xattrs.find(|(one, _)| *one == name) {
                            Some((_, value)) => answer_xattr(reply, room, value),
                            None => reply.error(Errno::NO_XATTR),
                        }
                    }
                    Err(errno) => reply.error(errno),
                });
            }
            _ => reply.error(Errno::NO_XATTR),
        }
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, room: u32, reply: ReplyXattr) {
        match MountInode::of(inode.0) {
            Some(MountInode::Sealed(slot, node)) if !is_root(node) => {
                let then = move |state: &Arc<MountState>, entered: Result<&Arc<_>, Errno>| {
                    let entered: &Arc<EnteredSnapshot> = match entered {
                        Ok(entered) => entered,
                        Err(errno) => return reply.error(errno),
                    };
                    let xattrs = entered.tree.entry(node).map(|entry| entry.xattrs());
                    let mut names = Vec::new();
                    for (name, _) in xattrs.into_iter().flatten() {
                        if state.view.shows_xattr(name) {
                            names.extend_from_slice(name);
                            names.push(0);
                        }
                    }
                    answer_xattr(reply, room, &names);
                };
                self.state().within(request.pid(), slot, then);
            }
            _ => answer_xattr(reply, room, &[]),
        }
    }
}
