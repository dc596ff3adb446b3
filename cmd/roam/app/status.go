package app

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) statusCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how the device is and whether it is safe to shut down",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.status(cmd.Context(), watch) },
	}
	c.Flags().BoolVar(&watch, "watch", false, "show it again each time it has changed")
	return c
}

func (p *program) status(ctx context.Context, watch bool) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	shown := false
	show := func(s Status) error {
		switch {
		case p.json:
			return p.print(&s)
		case watch && isTerminal(p.out):
			fmt.Fprint(p.out, "\x1b[H\x1b[2J") // clear it
		case shown:
			fmt.Fprintln(p.out)
		}
		shown = true
		return writeStatus(p.out, s, p.verbose, time.Now())
	}
	if watch {
		return c.watchStatus(ctx, show)
	}
	s, err := c.status(ctx)
	if err != nil {
		return err
	}
	return show(s)
}

// writeStatus writes s for a person at the time now.
func writeStatus(w io.Writer, s Status, verbose bool, now time.Time) error {
	var b strings.Builder
	row := func(name, format string, args ...any) { // wider than the longest name
		fmt.Fprintf(&b, "%-20s%s\n", name, fmt.Sprintf(format, args...))
	}
	row("device", "%s (%s), process %d", s.Device.Name, s.Device.Role, s.PID)
	if s.Revoked {
		row("hive", "this device was removed from it; its files can be read here and not be changed, and `roam rescue` copies out what the others lack")
	}
	if len(s.Mounts) == 0 {
		row("files at", "nowhere: no mount")
	}
	for _, dir := range s.Mounts {
		row("files at", "%s", dir)
	}
	space := humanSize(s.Cache.UsedBytes)
	if s.Cache.LimitBytes > 0 {
		space += " of " + humanSize(s.Cache.LimitBytes)
	}
	if s.Cache.OnlyHereBytes > 0 {
		space += ", " + humanSize(s.Cache.OnlyHereBytes) + " of it exists only here"
	}
	if s.Cache.PinnedBytes > 0 {
		space += ", " + humanSize(s.Cache.PinnedBytes) + " pinned"
	}
	row("space used", "%s", space)
	if len(s.Peers) == 0 {
		row("other devices", "none; add one with `roam invite`")
	}
	for i, peer := range s.Peers {
		name := "other devices"
		if i > 0 {
			name = ""
		}
		row(name, "%s (%s): %s", peer.Name, peer.Role, peerText(peer, now))
		if peer.Problem != "" {
			row("", "  %s", peer.Problem)
		}
	}
	if s.WaitingToCopy.Files > 0 {
		row("waiting to copy", "%s", amountText(s.WaitingToCopy))
	} else {
		row("waiting to copy", "nothing")
	}
	if n := s.History.OnlyHereBytes; n > 0 {
		row("old versions", "%s of them only here: not to be had while this device is off", humanSize(n))
	}
	if s.Conflicts > 0 {
		row("conflicts", "%d", s.Conflicts)
	} else {
		row("conflicts", "none")
	}
	for _, h := range s.Pending {
		row("held back", "%s; see `roam pending`", pendingText(h))
	}
	if n := s.HeldBack.Commits; n > 0 {
		row("held back", "%s that removed devices made later; see `roam devices`", plural(int64(n), "change", "changes"))
	}
	for _, u := range s.Unavailable {
		row("unavailable", "%s: %s, %s", quotePath(u.Path), heldBy(u.Holders), agoText(u.At, now))
	}
	safe := "yes"
	if !s.SafeToStop {
		safe = "no"
		if len(s.UnsafeBecause) > 0 {
			safe += ": " + strings.Join(s.UnsafeBecause, "; ")
		}
	}
	row("safe to shut down", "%s", safe)
	if verbose {
		row("device id", "%s", s.Device.ID)
		row("hive", "%s", s.Hive.ID)
		row("root", "%s", s.Root)
		row("blocks", "%d", s.Cache.Blocks)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func peerText(p PeerStatus, now time.Time) string {
	if p.Connected {
		text := "connected"
		if p.RTT != nil {
			text += fmt.Sprintf(", %.1f ms", *p.RTT)
		}
		if p.Path != "" {
			text += ", " + p.Path
		}
		return text
	}
	if p.LastSeen == nil {
		return "not seen yet"
	}
	return "last seen " + agoText(*p.LastSeen, now)
}

func heldBy(devices []DeviceRef) string {
	if len(devices) == 0 {
		return "no device is known to have it"
	}
	verb := "has"
	if len(devices) > 1 {
		verb = "have"
	}
	return names(devices) + " " + verb + " it and cannot be reached"
}
