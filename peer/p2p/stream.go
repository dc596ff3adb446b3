package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	msmux "github.com/multiformats/go-multistream"

	"github.com/roamfs/roamfs/peer/device"
)

// negotiateTimeout bounds how long a new stream may take to name its protocol.
const negotiateTimeout = 10 * time.Second

// stream is a [Stream] on a connection. rw is s, or s behind the client's side of
// the negotiation, which goes out with the first bytes written.
type stream struct {
	s    network.Stream
	rw   io.ReadWriter
	conn *conn // nil on a Guest
}

// Read reads, and notes that the connection is alive.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.rw.Read(p)
	if n > 0 && s.conn != nil {
		s.conn.seen()
	}
	return n, err
}

func (s *stream) Write(p []byte) (int, error) { return s.rw.Write(p) }

func (s *stream) CloseWrite() error {
	if f, ok := s.rw.(interface{ Flush() error }); ok {
		if err := f.Flush(); err != nil {
			return err
		}
	}
	return s.s.CloseWrite()
}

func (s *stream) Close() error {
	err := s.CloseWrite()
	if err != nil {
		_ = s.s.Reset()
	}
	s.forget()
	return errors.Join(err, s.s.Close())
}

func (s *stream) Reset() error {
	// On a connection that no longer moves, a reset would wait for room to send.
	_ = s.s.SetDeadline(past)
	s.forget()
	if s.conn != nil && s.conn.isDead() {
		return nil // the connection ends all its streams
	}
	return s.s.Reset()
}

func (s *stream) forget() {
	if s.conn != nil {
		s.conn.forget(s)
	}
}

func (s *stream) SetDeadline(t time.Time) error      { return s.deadline(s.s.SetDeadline, t) }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.deadline(s.s.SetReadDeadline, t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.deadline(s.s.SetWriteDeadline, t) }

// deadline sets a deadline, unless the connection is dead: then it is over.
func (s *stream) deadline(set func(time.Time) error, t time.Time) error {
	err := set(t)
	if s.conn != nil && s.conn.isDead() {
		return set(past)
	}
	return err
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// negotiated returns the dialer's end of a new stream for proto.
func negotiated(s network.Stream, proto string) (io.ReadWriter, error) {
	if err := s.SetProtocol(protocol.ID(proto)); err != nil {
		_ = s.Reset()
		return nil, err
	}
	return msmux.NewMSSelect(s, protocol.ID(proto)), nil
}

// handler makes f a handler of the multiplexer of protocols.
func handler(ctx context.Context, f func(context.Context, device.ID, Stream)) msmux.HandlerFunc[protocol.ID] {
	return func(_ protocol.ID, rwc io.ReadWriteCloser) error {
		in, ok := rwc.(*incoming)
		if !ok {
			return fmt.Errorf("unexpected %T", rwc)
		}
		f(ctx, in.dev, in.Stream)
		return nil
	}
}

// incoming is what the multiplexer hands to handlers.
type incoming struct {
	Stream
	dev device.ID
}

// serve finds the protocol of a stream that was opened by dev, and handles it.
func serve(mux *msmux.MultistreamMuxer[protocol.ID], s Stream, raw network.Stream, dev device.ID) {
	if err := s.SetDeadline(time.Now().Add(negotiateTimeout)); err != nil {
		_ = s.Reset()
		return
	}
	proto, handle, err := mux.Negotiate(s)
	if err != nil {
		_ = s.Reset()
		return
	}
	if err := errors.Join(raw.SetProtocol(proto), s.SetDeadline(time.Time{})); err != nil {
		_ = s.Reset()
		return
	}
	if err := handle(proto, &incoming{Stream: s, dev: dev}); err != nil {
		_ = s.Reset()
	}
}
