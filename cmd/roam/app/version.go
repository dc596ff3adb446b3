package app

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionObject is what "roam version --json" prints.
type versionObject struct {
	Schema   int    `json:"schema"`
	Version  string `json:"version"`  // of the module; "(devel)" for a build from a work tree
	Revision string `json:"revision"` // of the source, if the build recorded it
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return p.version() },
	}
}

func (p *program) version() error {
	o := &versionObject{Schema: Schema, Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			o.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				o.Revision = s.Value
			}
		}
	}
	if p.json {
		return p.print(o)
	}
	_, err := fmt.Fprintf(p.out, "roam %s (%s, %s)\n", o.Version, o.Go, o.Platform)
	return err
}
