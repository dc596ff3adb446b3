package app

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// helpCommand is "roam help". Unlike cobra's own it reports a topic that does
// not exist as an error of usage.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND | TOPIC]",
		Short:   "Explain a command or a topic",
		GroupID: groupOther,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return misused(fmt.Errorf("there is no help about %q", clip(strings.Join(args, " "))))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// exitCodesTopic is "roam help exit-codes".
func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `Every roam command ends with one of these codes. They never change.

  0  done
  1  failed
  2  usage: the command line cannot be carried out as it is written
  3  no such path or device
  4  not reachable now; trying again later may help
  5  refused to protect data
  6  damage found
  7  the device is not running
  8  conflict present

With --json the error is one object on stderr:

  {"schema":1,"error":"…","hint":"…","code":N}`,
	}
}

// usageTemplate changes cobra's template where it does not fit: roam does nothing
// without a command, and a topic is read with "roam help".
func usageTemplate(t string) string {
	return strings.NewReplacer(
		"{{if .Runnable}}", "{{if and .Runnable .HasParent}}",
		"{{rpad .CommandPath .CommandPathPadding}} {{.Short}}", "{{.Root.Name}} help {{.Name}}  {{.Short}}",
	).Replace(t)
}
