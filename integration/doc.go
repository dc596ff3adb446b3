// Package integration tests roam as its users run it: several real processes,
// each with a state directory and a real mount of its own, over loopback or,
// as root, over network namespaces whose links can be cut and healed. Package cli
// drives the devices, program bench measures them. There is nothing here but
// tests; doc.go exists so that the folder has a package.
package integration
