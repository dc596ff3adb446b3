// Package app is the program roam: one file per verb, the state directory, the
// configuration, the daemon with its socket, and the wiring of the parts.
//
// [Run] carries out one command line. A verb either works on the state
// directory alone (init, join, paths), or becomes the daemon of that directory
// (mount, serve), or asks the running daemon over its socket (all the others).
// The daemon drives a [Device], which an [Engine] opens; both are declared here
// by their user, and device.go joins the real parts to satisfy them.
//
// # State directory
//
// Everything that one device is lies in one directory, mode 0700:
//
//	config.toml         settings, see [Config]; a new cache_size counts while the device runs
//	identity.key        the device key, 0600
//	recovery-sheet.txt  what the owner prints and keeps elsewhere, 0600; first device only
//	lock                lock of the process that runs the device, and its pid
//	api.sock            the daemon's socket, 0600
//	incarnation         tells this directory from a copy of it (incarnation.go)
//	db/                 the local database
//	kept                what makes the next start fast, while the device is off
//	staging             a tree that is being received
//	blocks/             the bounded cache of blocks
//	drafts/             bytes of open and not yet published files
//	log, log.old        what a daemon in the background has to say, 1 MiB each at most
//	unfinished          present while init or join is at work
//
// The directory is not a disposable cache, since it may hold the only copy of
// something, so it is never tagged as one.
//
// # Socket
//
// The daemon answers HTTP with JSON bodies on api.sock, to processes of its own
// user and of root only. Every object carries "schema". A failure is the status
// 4xx or 5xx with the object {"schema":1,"error":"…","hint":"…","code":N}, where
// code is an exit code. Endpoints that answer with many objects send one
// envelope per line, {"item":…}, and end with {"end":true} or {"error":{…}}, so
// that an answer cut short is not taken for a whole one.
//
//	GET  /v1/status         one Status
//	GET  /v1/status/watch   Status each time it changed
//	GET  /v1/devices        Member…
//	POST /v1/devices/rename {"device","name"} → Member
//	POST /v1/devices/role   {"device","role"} → Member
//	POST /v1/ls             {"path"} → Entry…
//	POST /v1/whereis        {"paths","verify"} → Whereis…
//	GET  /v1/conflicts      Conflict…
//	POST /v1/resolve        {"path","keep"} → Resolved
//	GET  /v1/pending        Pending…
//	POST /v1/pending        {"device","accept"} → Decided
//	POST /v1/invite         {"role","ttl_seconds"} → InviteEvent…
//	POST /v1/mount          {"dir"} → Mounted
//	POST /v1/unmount        {"dir"} → Ended
//	POST /v1/stop           {} → Ended
//
// Paths in requests are bytes, so base64 in JSON. In answers a path is a JSON
// string, and where it is not valid UTF-8 its bytes are in "path_base64" too.
package app
