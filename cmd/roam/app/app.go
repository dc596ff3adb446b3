package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Run carries out the command line args, without the program's name, and
// returns the error that it has reported on stderr, if any; [ExitCode] turns
// that into the exit code. It returns when the work is done or, soon after, when
// ctx ends. Results go to stdout, everything else to stderr.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	return run(ctx, args, streams{in: stdin, out: stdout, err: stderr}, engine{})
}

// streams are the standard streams of one command.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// program is one command line at work.
type program struct {
	streams
	engine Engine

	// The flags that every verb takes.
	state   string
	json    bool
	verbose bool
}

func run(ctx context.Context, args []string, s streams, e Engine) error {
	p := &program{streams: s, engine: e}
	root := p.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeUsage && e.Hint == "" {
		e.Hint = fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	}
	// The flags may not have been read when the error is about them.
	report(s.err, err, p.json || wantsJSON(args))
	return err
}

// wantsJSON tells whether args ask for JSON, without reading the rest of them.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.ContainsFunc(args, func(a string) bool { return a == "--json" || a == "--json=true" })
}

// rootCommand builds the command line: the one place that lists the verbs.
func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "roam",
		Short: "One folder on all your devices",
		Long: `roam shows the files of all your devices as one folder on each of them. A
file that is not here is fetched from the device that has it when it is read.

Begin on the first device:      roam init  &&  roam mount ~/Roam
Add another one: on the first   roam invite
                 on the new     roam join CODE  &&  roam mount ~/Roam`,
		Args:              cobra.ArbitraryArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              p.noVerb,
	}
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misused(err) })
	root.SuggestionsMinimumDistance = 2
	flags := root.PersistentFlags()
	flags.StringVar(&p.state, "state", "", "state directory of the device (default $ROAM_STATE, else $XDG_DATA_HOME/roamfs)")
	flags.BoolVar(&p.json, "json", false, "print JSON, one object per line")
	flags.BoolVar(&p.verbose, "verbose", false, "say more")
	flags.SortFlags = false

	root.AddGroup(&cobra.Group{ID: groupDevice, Title: "This device:"},
		&cobra.Group{ID: groupFiles, Title: "Files:"},
		&cobra.Group{ID: groupOther, Title: "Other:"})
	for group, commands := range map[string][]*cobra.Command{
		groupDevice: {
			p.initCommand(), p.inviteCommand(), p.joinCommand(), p.recoverCommand(), p.mountCommand(), p.serveCommand(),
			p.unmountCommand(), p.stopCommand(), p.statusCommand(), p.devicesCommand(),
		},
		groupFiles: {
			p.lsCommand(), p.whereisCommand(), p.conflictsCommand(), p.resolveCommand(),
			p.pendingCommand(), p.acceptCommand(), p.rejectCommand(),
			p.versionsCommand(), p.restoreCommand(), p.rescueCommand(), p.snapshotCommand(), p.snapshotsCommand(),
		},
		groupOther: {p.pathsCommand(), p.versionCommand(), p.completionCommand()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.AddCommand(exitCodesTopic())
	root.SetHelpCommand(helpCommand())
	root.SetUsageTemplate(usageTemplate(root.UsageTemplate()))
	for _, c := range root.Commands() {
		checkArgs(c)
	}
	return root
}

// The groups of verbs in the help.
const (
	groupDevice = "device"
	groupFiles  = "files"
	groupOther  = "other"
)

// noVerb answers a command line without a verb, or with one that does not exist.
func (p *program) noVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		if !p.json {
			cmd.SetOut(p.err)
			_ = cmd.Help() // to stderr, where the error follows
		}
		return misused(errors.New("no command given"))
	}
	err := misused(fmt.Errorf("unknown command %q", clip(args[0])))
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		err.Hint = "did you mean `roam " + strings.Join(like, "` or `roam ") + "`?"
	}
	return err
}

// misused returns err as an error of the command line.
func misused(err error) *Error { return &Error{Code: CodeUsage, Err: err} }

// checkArgs makes a wrong number of arguments an error of usage.
func checkArgs(c *cobra.Command) {
	for _, sub := range c.Commands() {
		checkArgs(sub)
	}
	check := c.Args
	if check == nil {
		return
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return misused(err)
		}
		return nil
	}
}

// stateDir returns the state directory of this command line.
func (p *program) stateDir() (string, error) { return statePath(p.state, os.Getenv) }

// print writes v as one line of JSON.
func (p *program) print(v any) error {
	pack(v)
	enc := json.NewEncoder(p.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// say writes a line of talk, which is no result, to stderr. With --json stderr
// is for errors alone.
func (p *program) say(format string, args ...any) {
	if !p.json {
		fmt.Fprintf(p.err, format+"\n", args...)
	}
}

// logger returns where a device that runs in this command logs: silent when all
// is well.
func (p *program) logger(w io.Writer) *slog.Logger {
	level := slog.LevelWarn
	if p.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
