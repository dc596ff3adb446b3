package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// madeObject is what init and join print with --json.
type madeObject struct {
	Schema        int        `json:"schema"`
	Device        DeviceInfo `json:"device"`
	Hive          HiveInfo   `json:"hive"`
	State         string     `json:"state"`
	RecoverySheet string     `json:"recovery_sheet,omitempty"` // path
}

// newDevice are the flags that init and join share.
type newDevice struct {
	name, role, cacheSize string
}

func (n *newDevice) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&n.name, "name", "", "what this device is called (default: the host name)")
	f.StringVar(&n.cacheSize, "cache-size", "", "disk space it may take, such as 20GiB (default 20GiB; an archive has no bound)")
}

// change applies the flags to the configuration.
func (n *newDevice) change(c *Config) error {
	if n.cacheSize == "" {
		return nil
	}
	size, err := ParseSize(n.cacheSize)
	if err == nil && size < MinCacheSize {
		err = fmt.Errorf("%v is less than the least size %v", size, MinCacheSize)
	}
	if err != nil {
		return usage("--cache-size: %w", err)
	}
	c.CacheSize = size
	return nil
}

func (p *program) initCommand() *cobra.Command {
	var n newDevice
	c := &cobra.Command{
		Use:   "init",
		Short: "Make this device the first of a new hive",
		Long: `Make this device the first of a new hive: the devices of one person, which all
show the same files. Add more devices with "roam invite" here and "roam join"
there.

init writes a recovery sheet. Print it or copy it away from this computer, and
then delete the file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.init(cmd.Context(), n) },
	}
	n.flags(c)
	c.Flags().StringVar(&n.role, "role", RoleCache, "cache: bounded, gives back space; archive: keeps everything")
	return c
}

func (p *program) init(ctx context.Context, n newDevice) error {
	if err := checkRole(n.role, false); err != nil {
		return err
	}
	made, dir, err := p.make(ctx, n, func(s *State, name string) (Created, error) {
		return p.engine.Create(ctx, s, CreateOptions{Name: name, Role: n.role})
	})
	if err != nil {
		return err
	}
	if p.json {
		return p.print(made)
	}
	fmt.Fprintf(p.out, `This is the first device of a new hive.

  device          %s (%s)
  device id       %s
  hive            %s
  lies in         %s
`, made.Device.Name, made.Device.Role, made.Device.ID, made.Hive.ID, dir)
	if made.RecoverySheet != "" {
		fmt.Fprintf(p.out, `  recovery sheet  %s

Print the recovery sheet or copy it away from this computer, then delete the
file. It is the way back to your files if all devices are lost, and whoever has
it can read them.
`, made.RecoverySheet)
	}
	fmt.Fprintf(p.out, `
Next: roam mount ~/Roam    to see the files
      roam invite          to add another device
`)
	return nil
}

// make makes the state directory of a new device, with create filling it, or
// leaves nothing.
func (p *program) make(ctx context.Context, n newDevice, create func(s *State, name string) (Created, error)) (*madeObject, string, error) {
	dir, err := p.stateDir()
	if err != nil {
		return nil, "", err
	}
	if _, err := chooseName(n.name, ""); err != nil { // before anything is made
		return nil, "", err
	}
	s, config, err := createState(dir, n.change)
	if err != nil {
		return nil, "", err
	}
	created, err := func() (Created, error) {
		name, err := chooseName(n.name, config.Name)
		if err != nil {
			return Created{}, err
		}
		created, err := create(s.State, name)
		if err != nil {
			return Created{}, err
		}
		if created.RecoverySheet != "" {
			if err := writeFile(s.RecoverySheet(), []byte(created.RecoverySheet)); err != nil {
				return Created{}, fmt.Errorf("recovery sheet: %w", err)
			}
		}
		if err := ctx.Err(); err != nil {
			return Created{}, err
		}
		return created, s.Commit()
	}()
	if err != nil {
		return nil, "", errors.Join(err, s.Rollback())
	}
	made := &madeObject{Schema: Schema, Device: created.Device, Hive: created.Hive, State: dir}
	if created.RecoverySheet != "" {
		made.RecoverySheet = s.RecoverySheet()
	}
	return made, dir, s.Close()
}
