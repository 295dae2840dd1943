package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// Ends this process as soon as its starter is gone, however that ended: standard input
// is a pipe whose writing end only the starter holds.
func exitWithStarter() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(1)
}

// Runs a program that does not know about the pipe, and ends it with its starter.
func runTied(program string, arguments []string) int {
	// The kernel kills the program when the thread that started it ends: stay on the
	// main one.
	runtime.LockOSThread()
	command := exec.Command(program, arguments...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	if err := command.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go exitWithStarter()
	go func() {
		for received := range stop {
			_ = command.Process.Signal(received)
		}
	}()
	_ = command.Wait()
	return command.ProcessState.ExitCode()
}
