package app

import (
	"context"
	"net/http"
)

// The bodies of requests about earlier states of the tree.
type (
	snapshotRequest struct {
		Name string `json:"name"`
	}
	versionsRequest struct {
		Path []byte `json:"path"`
	}
	restoreRequest struct {
		Path []byte `json:"path"`
		When string `json:"when"`
		To   []byte `json:"to"` // empty: where it was
	}
)

// history adds what answers questions about earlier states of the tree.
func (s *server) history(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/snapshots", func(w http.ResponseWriter, r *http.Request) {
		all, err := s.device.Snapshots(r.Context())
		sendAll(w, all, err)
	})
	mux.HandleFunc("POST /v1/snapshot", func(w http.ResponseWriter, r *http.Request) {
		var q snapshotRequest
		if decode(w, r, &q) {
			made, err := s.device.Snapshot(r.Context(), q.Name)
			answer(w, &made, err)
		}
	})
	mux.HandleFunc("POST /v1/versions", func(w http.ResponseWriter, r *http.Request) {
		var q versionsRequest
		if !decode(w, r, &q) {
			return
		}
		p, err := treePath(q.Path)
		var all []PastVersion
		if err == nil {
			all, err = s.device.Versions(r.Context(), p)
		}
		sendAll(w, all, err)
	})
	mux.HandleFunc("POST /v1/restore", func(w http.ResponseWriter, r *http.Request) {
		var q restoreRequest
		if !decode(w, r, &q) {
			return
		}
		p, err := treePath(q.Path)
		to := ""
		if err == nil && len(q.To) > 0 {
			to, err = treePath(q.To)
		}
		var done Restored
		if err == nil {
			done, err = s.device.Restore(r.Context(), p, q.When, to)
		}
		answer(w, &done, err)
	})
}

func (c *client) snapshots(ctx context.Context, fn func(SnapshotInfo) error) error {
	return many(ctx, c, http.MethodGet, "/v1/snapshots", nil, fn)
}

func (c *client) snapshot(ctx context.Context, name string) (SnapshotInfo, error) {
	return one[SnapshotInfo](ctx, c, http.MethodPost, "/v1/snapshot", snapshotRequest{Name: name})
}

func (c *client) versions(ctx context.Context, path string, fn func(PastVersion) error) error {
	return many(ctx, c, http.MethodPost, "/v1/versions", versionsRequest{Path: []byte(path)}, fn)
}

func (c *client) restore(ctx context.Context, path, when, to string) (Restored, error) {
	return one[Restored](ctx, c, http.MethodPost, "/v1/restore", restoreRequest{Path: []byte(path), When: when, To: []byte(to)})
}
