package chunk

// HeadLen is how many bytes from the begin of the content [Choose] looks at.
const HeadLen = 2 << 10

// magic is a sequence of bytes at a fixed offset by which a format is known.
type magic struct {
	off   int
	bytes string
}

// inPlaceFormats are formats whose programs overwrite parts of the file and
// leave the rest where it is.
func inPlaceFormats() []magic {
	return []magic{
		{0, "SQLite format 3\x00"},
		{4, "Standard Jet DB\x00"}, // Access
		{4, "Standard ACE DB\x00"},
		{0, "!BDN"},              // Outlook
		{16, "\xde\xc0\xef\xbe"}, // LMDB, little-endian
		{12, "\x62\x31\x05\x00"}, // Berkeley DB, B-tree
		{0, "QFI\xfb"},           // qcow2
		{0, "KDMV"},              // VMDK, sparse
		{0, "COWD"},              // VMDK, older
		{64, "\x7f\x10\xda\xbe"}, // VirtualBox
		{0, "vhdxfile"},          // Hyper-V
		{0, "conectix"},          // Virtual PC, dynamic
		{0, "LUKS\xba\xbe"},      // encrypted volume
		{0, "XFSB"},              // disk images from here on
		{512, "EFI PART"},        // GPT
		{1080, "\x53\xef"},       // ext2, 3, 4
		{3, "NTFS    "},          //
		{82, "FAT32   "},         //
		{54, "FAT16   "},         //
	}
}

// updatedInPlace reports whether head begins a format that is updated in place.
func updatedInPlace(head []byte) bool {
	for _, m := range inPlaceFormats() {
		if end := m.off + len(m.bytes); end <= len(head) && string(head[m.off:end]) == m.bytes {
			return true
		}
	}
	return false
}
