package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"

	"github.com/spf13/cobra"
)

// Writes a new private key, with which the API server signs service account tokens.
func keyCommand() *cobra.Command {
	return &cobra.Command{
		Use:          "key FILE",
		Args:         cobra.ExactArgs(1),
		SilenceUsage: true,
		RunE: func(_ *cobra.Command, arguments []string) error {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			der, err := x509.MarshalECPrivateKey(key)
			if err != nil {
				return err
			}
			block := &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}
			return os.WriteFile(arguments[0], pem.EncodeToMemory(block), 0o600)
		},
	}
}
