package cache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/block"
)

// The directories that are charged: the 256 that block files are spread over,
// and three more.
const (
	dirPacks = 256 + iota
	dirQuarantine
	dirTop
	numDirs
)

func (c *Cache) dirPath(n int) string {
	switch n {
	case dirPacks:
		return filepath.Join(c.dir, "packs")
	case dirQuarantine:
		return filepath.Join(c.dir, "quarantine")
	case dirTop:
		return c.dir
	}
	return filepath.Join(c.dir, hex.EncodeToString([]byte{byte(n)}))
}

// filePath is where a block has a file of its own; tempPath where it is written.
func (c *Cache) filePath(id block.ID) string {
	s := id.String()
	return filepath.Join(c.dir, s[:2], s[2:])
}

func (c *Cache) tempPath(id block.ID) string {
	s := id.String()
	return filepath.Join(c.dir, s[:2], "."+s[2:])
}

// allocated returns the bytes that the file system has allocated for a file.
func allocated(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * 512, nil
}

// makeDir makes a directory if it is missing. Its room is part of dirRoom.
func (c *Cache) makeDir(n int) error {
	c.mu.Lock()
	made := c.accounts.dirs[n] > 0
	c.mu.Unlock()
	if made {
		return nil
	}
	if err := os.Mkdir(c.dirPath(n), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	c.chargeDir(dirTop)
	return nil
}

// dirRoom is what directories may grow by when a name is added: the directory
// itself, when it is made, one block of the file system in it, and one in the one above.
const dirRoom = 3 * pageSize

// chargeDir brings the charge of a directory up to date.
func (c *Cache) chargeDir(n int) {
	size, err := allocated(c.dirPath(n))
	if err != nil {
		return // it was not made
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// At least 1 where a file system counts nothing for directories, for 0 means not
	// made; and never less, so that calls that overtake one another do no harm.
	size = max(size, 1, c.accounts.dirs[n])
	c.accounts.used += size - c.accounts.dirs[n]
	c.accounts.dirs[n] = size
}

// writeFile puts a block into a file of its own and returns what it is charged.
// Room for roundUp(len(sealed)) + dirRoom is reserved.
func (c *Cache) writeFile(id block.ID, sealed []byte) (err error) {
	if err := c.makeDir(int(id[0])); err != nil {
		return err
	}
	temp := c.tempPath(id)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(sealed)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, c.filePath(id))
	}
	if err != nil {
		return errors.Join(err, remove(temp))
	}
	c.chargeDir(int(id[0]))
	return nil
}

// remove removes a file that may not be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// blockOfFile reads the ID of a block file from the names of its directory and
// itself.
func blockOfFile(dir, name string) (block.ID, bool) {
	id, err := block.ParseID(dir + name)
	return id, err == nil && strings.ToLower(dir+name) == dir+name
}

// writeSmall replaces a small file beside the blocks and charges it.
func (c *Cache) writeSmall(name string, data []byte) error {
	room := roundUp(int64(len(data))) + pageSize
	if err := c.reserve(c.ctx, room, forUpkeep); err != nil {
		return err
	}
	path := filepath.Join(c.dir, name)
	temp := filepath.Join(c.dir, "."+name)
	err := writeDurably(temp, data)
	if err == nil {
		err = errors.Join(os.Rename(temp, path), syncPath(c.dir))
	}
	if err != nil {
		c.settle(room, 0)
		return errors.Join(fmt.Errorf("write %s: %w", name, err), remove(temp))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := roundUp(int64(len(data)))
	c.settleLocked(room, size-c.accounts.files[name])
	c.accounts.files[name] = size
	return nil
}

// writeDurably writes a file that is whole after a power cut once it was renamed.
func writeDurably(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// bootID names one run of the kernel.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
