package app

import (
	"context"

	"github.com/spf13/cobra"
)

func (p *program) recoverCommand() *cobra.Command {
	var (
		n            newDevice
		sheet        string
		addresses    []string
		jsonProgress bool
	)
	c := &cobra.Command{
		Use:   "recover --sheet FILE",
		Short: "Make this new device a member with the recovery sheet",
		Long: `Make this new device a member of your hive with the recovery sheet, when there is
no device left that could invite it: all that is needed is one that runs and
holds your files, an archive for instance. The sheet may be older than the
newest changes of the hive. It is read and not kept.

If the disk of the archive is all that is left, its state directory is the
device: copy it here as it is and use it with "roam serve --state DIR" or "roam mount
--state DIR ~/Roam".

Then remove the devices that are lost: roam devices revoke NAME --sheet FILE.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.recover(cmd.Context(), n, sheet, addresses, jsonProgress)
		},
	}
	n.flags(c)
	f := c.Flags()
	f.StringVar(&n.role, "role", RoleCache, "cache: bounded, gives back space; archive: keeps everything")
	f.StringVar(&sheet, "sheet", "", "file with the recovery sheet; - reads it from the standard input")
	f.StringArrayVar(&addresses, "address", nil, "where to reach the device that is left, such as 192.168.1.5:4001; may be repeated (default: looks on the local network)")
	f.BoolVar(&jsonProgress, "json-progress", false, "print the progress as JSON objects")
	return c
}

func (p *program) recover(ctx context.Context, n newDevice, sheet string, addresses []string, jsonProgress bool) error {
	if err := checkRole(n.role, false); err != nil {
		return err
	}
	if sheet == "" {
		return usage("say where the recovery sheet is with --sheet FILE, or type it in with --sheet -")
	}
	o := RecoverOptions{Role: n.role}
	var err error
	if o.Addresses, err = parseAddresses(addresses); err != nil {
		return err
	}
	if o.Sheet, err = p.readSheet(sheet); err != nil {
		return err
	}
	show := p.newMeter(jsonProgress)
	made, dir, err := p.make(ctx, n, func(s *State, name string) (Created, error) {
		o.Name = name
		return p.engine.Recover(ctx, s, o, show.update)
	})
	show.close()
	if err != nil {
		return err
	}
	return p.member(made, dir, `Next: roam mount ~/Roam                          to see the files
      roam devices revoke NAME --sheet FILE      to remove a device that is lost
`)
}
