package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// One etcd member on loopback. Its data lives as long as a test, so it does not wait
// for the disk.
func etcdCommand() *cobra.Command {
	var directory string
	var client, peer int
	command := &cobra.Command{
		Use:          "etcd",
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			server, err := embed.StartEtcd(etcdConfig(directory, client, peer))
			if err != nil {
				return err
			}
			defer server.Close()
			<-server.Server.ReadyNotify()
			untilStopped()
			return nil
		},
	}
	command.Flags().StringVar(&directory, "data-dir", "", "where the data goes")
	command.Flags().IntVar(&client, "client-port", 0, "port on 127.0.0.1 for clients")
	command.Flags().IntVar(&peer, "peer-port", 0, "port on 127.0.0.1 for peers")
	return command
}

func etcdConfig(directory string, client, peer int) *embed.Config {
	config := embed.NewConfig()
	config.Name = "etcd"
	config.Dir = directory
	config.LogLevel = "error"
	config.UnsafeNoFsync = true
	config.QuotaBackendBytes = 4 << 30
	config.ListenClientUrls = []url.URL{loopback(client)}
	config.AdvertiseClientUrls = config.ListenClientUrls
	config.ListenPeerUrls = []url.URL{loopback(peer)}
	config.AdvertisePeerUrls = config.ListenPeerUrls
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	return config
}

func loopback(port int) url.URL {
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
}
