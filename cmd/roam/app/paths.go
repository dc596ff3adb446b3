package app

import (
	"fmt"

	"github.com/spf13/cobra"
)

// pathsObject is what "roam paths --json" prints.
type pathsObject struct {
	Schema        int    `json:"schema"`
	State         string `json:"state"`
	Config        string `json:"config"`
	Key           string `json:"key"`
	RecoverySheet string `json:"recovery_sheet"`
	Lock          string `json:"lock"`
	Socket        string `json:"socket"`
	Database      string `json:"database"`
	Blocks        string `json:"blocks"`
	Drafts        string `json:"drafts"`
	Log           string `json:"log"`
}

func (p *program) pathsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "paths",
		Short: "Print what lies where",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return p.paths() },
	}
}

func (p *program) paths() error {
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	s := &State{dir: dir}
	o := &pathsObject{
		Schema: Schema, State: dir, Config: s.ConfigFile(), Key: s.KeyFile(), RecoverySheet: s.RecoverySheet(),
		Lock: s.LockFile(), Socket: s.Socket(), Database: s.Database(), Blocks: s.Blocks(), Drafts: s.Drafts(), Log: s.LogFile(),
	}
	if p.json {
		return p.print(o)
	}
	for _, line := range [][2]string{
		{"state directory", o.State},
		{"settings", o.Config},
		{"device key", o.Key},
		{"recovery sheet", o.RecoverySheet},
		{"lock", o.Lock},
		{"socket", o.Socket},
		{"database", o.Database},
		{"blocks", o.Blocks},
		{"drafts", o.Drafts},
		{"log", o.Log},
	} {
		if _, err := fmt.Fprintf(p.out, "%-16s %s\n", line[0], line[1]); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	}
	return nil
}
