// A Kubernetes control plane in one binary, for the end-to-end tests: etcd, the API
// server, the scheduler, the controller manager and kubectl, each as a sub-command.
//
// The components set process-wide state (flags, feature gates, metrics registries), so
// each runs as its own process of this same binary.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

var components = map[string]func() *cobra.Command{
	"etcd":                    etcdCommand,
	"key":                     keyCommand,
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-controller-manager": manager.NewControllerManagerCommand,
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"version":                 versionCommand,
}

// The component is named by the first argument, or by the name the binary is called
// with, so that a link called kubectl is kubectl. `tied` before it ends the component
// with whoever started it.
func main() {
	name, arguments := filepath.Base(os.Args[0]), os.Args[1:]
	if components[name] == nil && len(arguments) > 0 {
		name, arguments = arguments[0], arguments[1:]
	}
	if name == "tied" && len(arguments) > 0 {
		name, arguments = arguments[0], arguments[1:]
		if components[name] == nil {
			os.Exit(runTied(name, arguments))
		}
		go exitWithStarter()
	}
	component := components[name]
	if component == nil {
		fmt.Fprintf(os.Stderr, "%q is not a component of the control plane\n", name)
		os.Exit(2)
	}
	os.Args = append([]string{name}, arguments...)
	command := component()
	command.SetArgs(arguments)
	os.Exit(cli.Run(command))
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version",
		Run: func(*cobra.Command, []string) { fmt.Println(version.Get().GitVersion) },
	}
}

// Waits for the signal that a test fixture ends a component with.
func untilStopped() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
