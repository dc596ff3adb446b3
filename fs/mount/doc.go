// Package mount shows the tree as a file system: go-fuse nodes and handles over
// a [Tree] for names and attributes and a [file.Table] for bytes. It is the only
// package that knows go-fuse and the only one that speaks errno.
//
// # What the kernel caches
//
// This process is the only writer, so the kernel may keep what it was told: names
// (also names that do not exist), attributes, directory listings, symlink
// targets and pages are cached without expiry, and pages survive close and
// reopen. What a local request changes is right in its reply, or the kernel drops
// it by itself (link counts, times of the directory, the size of a written file),
// or it is queued for invalidation. What another device changes arrives as
// [tree.Affected] after the tree shows it, and each name and inode in it is
// invalidated.
//
// No stale answer may outlive its invalidation. A notification for a name waits
// in the kernel for the lookups and listings under way in that directory, so an answer that was
// read from the tree before the change arrives before the name is dropped. The
// listing and the attributes of a directory are dropped after its names, and those of
// an inode after a notification for a name that cannot exist in its directory, for the same
// reason. An open that crosses a change is done over. A request for a file that is
// gone, while the kernel still knows its name, is answered with ESTALE: the kernel
// looks the name up again and goes on with what it shows now.
//
// A file that another device replaces while a program has it open behaves as if
// the new version had been renamed over it: the open descriptors and mappings
// keep the old inode of the kernel with the old bytes, size and pages, and the
// next lookup of the name gets a new one with the same inode number. Here the old
// node has then "parted" from the tree, like that of a file whose last name was
// removed. While local writes to the file are waiting to be committed it is not
// split.
//
// # Notifications and locks
//
// A notification can wait in the kernel for a request that is under way in the
// same directory, or for a page that is being read. So they are sent by
// goroutines of their own and never under a lock (the package comment of go-fuse
// fs describes the deadlock). Names and attributes go in one queue, in order;
// dropping pages, which can wait for a slow read, in another. Both coalesce and
// are bounded; entering something never waits.
//
// Locks, none of which is held during a call into the kernel or the tree, in the order in which
// they are taken: queue.mu, Mount.mu (the registry of nodes), node.mu (a node's identity and open
// files), and dirTimes.mu.
//
// # Attributes
//
// Inode numbers are a 63-bit hash of the inode's identity, so that they are the
// same after a remount and on every device. A directory's modification time
// moves when a child is added or removed here or elsewhere; that is kept in memory and
// forgotten with the mount, after which the directory's own time shows. The
// change time is the modification time or, if later, the last change of an
// attribute since the kernel learnt of the inode. Access times are kept only
// while the kernel knows the inode. Everything is owned by the user of the mount
// unless it was chowned here; that stays on this device.
//
// # What is not here
//
// Devices, sockets, O_TMPFILE, ACLs and attributes outside user.*; file locks are
// the kernel's and hold between the programs of this computer. syncfs(2) does not reach
// a FUSE server: fsync and close are what make data durable.
package mount
