package tree

import "errors"

// Errors of [Edit] and [View], beside fs.ErrNotExist, fs.ErrExist and
// fs.ErrPermission. Errors of the State are returned wrapped.
var (
	// ErrNotEmpty means that the directory shows entries.
	ErrNotEmpty = errors.New("directory not empty")
	// ErrIsDir means that the operation wants something else than a directory.
	ErrIsDir = errors.New("is a directory")
	// ErrNotDir means that the operation wants a directory.
	ErrNotDir = errors.New("not a directory")
	// ErrLoop means that a directory would come to lie in itself.
	ErrLoop = errors.New("directory into itself")
	// ErrName means a name that cannot stand in a directory.
	ErrName = errors.New("illegal name")
	// ErrNoXattr means that the inode has no such extended attribute.
	ErrNoXattr = errors.New("no such attribute")
	// ErrTooManyLinks means that the inode has MaxLinks names already.
	ErrTooManyLinks = errors.New("too many links")
	// ErrTooBig means an extended attribute of more than MaxXattr bytes.
	ErrTooBig = errors.New("attribute too big")
)
