package config

import (
	_ "embed"
	"strings"
)

//go:embed reference.yaml
var reference string

//go:embed reference-profile.yaml
var referenceProfile string

//go:embed starter.yaml
var starter string

// Reference is a hub.yaml with every key and what it means.
func Reference() string { return reference }

// ReferenceProfile is a device profile with every key and what it means.
func ReferenceProfile() string { return referenceProfile }

// Starter is a commented hub.yaml to begin with. It is good as it is. gatewayID must be one that ValidGatewayID takes.
func Starter(gatewayID string) string {
	return strings.Replace(starter, "id: hub-1 ", "id: "+gatewayID+" ", 1)
}

// ValidGatewayID says whether a text can be a gateway's id: 1 to 64 of a-z 0-9 and -.
func ValidGatewayID(id string) bool { return nameForm.MatchString(id) }
