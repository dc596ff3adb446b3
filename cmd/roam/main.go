// Roam shows the files of all your devices as one folder on each of them.
//
// This file handles signals and the exit code; everything else is in package
// app. The command line is documented by "roam help", the exit codes by
// "roam help exit-codes".
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/roamfs/roamfs/cmd/roam/app"
)

func main() {
	// The first signal asks for an orderly end. After that the default action
	// is restored, so that a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	os.Exit(app.ExitCode(app.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)))
}
