package app

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
	"github.com/roamfs/roamfs/sync/manifest"
)

// farewellProtocol tells a device that it does not belong to the hive any more. A
// device that is turned away by one that it takes for a member opens a stream:
//
//	1  it sends its newest manifest, so that the other one can tell its user what is held back
//	2  the other one sends the membership log up to the revocation (device.Log.Notice)
//
// each after its length (4, big-endian), which may be 0.
const farewellProtocol = "/roamfs/farewell/1"

// farewellTime bounds the exchange.
const farewellTime = 10 * time.Second

// writeSized and readSized exchange bytes after their length.
func writeSized(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readSized(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) > int64(limit) {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// turnedAway asks a device that serves this one nothing whether this one was revoked.
func (d *live) turnedAway(_ context.Context, dev device.ID, open func(string) (p2p.Stream, error)) {
	err := func() error {
		s, err := open(farewellProtocol)
		if err != nil {
			return err
		}
		defer func() { _ = s.Reset() }()
		newest, err := d.replica.Newest()
		if err != nil {
			return err
		}
		if err := errors.Join(writeSized(s, newest), s.CloseWrite()); err != nil {
			return err
		}
		notice, err := readSized(s, device.MaxLog)
		if err != nil || len(notice) == 0 {
			return err
		}
		return d.replica.MergeMembers(dev, notice)
	}()
	if err != nil {
		d.log.Debug("turned away", "device", d.name(dev), "err", err)
	}
}

// farewell answers a device that was revoked.
func (d *live) farewell(_ context.Context, dev device.ID, s p2p.Stream) {
	err := func() error {
		if err := s.SetDeadline(time.Now().Add(farewellTime)); err != nil {
			return err
		}
		newest, err := readSized(s, manifest.MaxSize)
		if err != nil {
			return err
		}
		if len(newest) > 0 {
			if err := d.replica.Farewell(dev, newest); err != nil {
				d.log.Info("what a revoked device says it did", "device", d.name(dev), "err", err)
			}
		}
		return errors.Join(writeSized(s, d.id.members.Notice(dev)), s.Close())
	}()
	if err != nil {
		_ = s.Reset()
		d.log.Debug("farewell", "device", d.name(dev), "err", err)
	}
}
