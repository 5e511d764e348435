package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	_ "time/tzdata" // a gateway's image may come without zone files
)

// ProfileFolder is the folder beside hub.yaml with a site's own profiles. One with the id of a profile that comes with
// the agent takes its place.
const ProfileFolder = "profiles"

// Load reads hub.yaml at path, and the site's own profiles from the folder profiles beside it. When there is something
// to mend the error is Problems, of all files together; otherwise it says which file cannot be read.
func Load(path string) (*Config, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read config: %w", err)
	}
	defer file.Close()
	data, err := readAll(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read config: %w", err)
	}
	known, problems, err := profilesWith(filepath.Join(filepath.Dir(path), ProfileFolder))
	if err != nil {
		return nil, err
	}
	cfg, err := Parse(path, data, known)
	if err == nil && len(problems) == 0 {
		return cfg, nil
	}
	var own Problems
	if err != nil && !errors.As(err, &own) {
		return nil, err
	}
	return nil, append(problems, own...).err()
}

// readAll reads a file, but no more of it than shows that it is too large.
func readAll(f io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(f, maxFileBytes+1)) }

// Parse reads the text of a hub.yaml. file names it in problems, and its folder is what relative paths start from.
// profiles are those that devices may name, as Profiles gives them. The error is Problems, or that of a working
// directory that is gone when file is a relative path.
func Parse(file string, data []byte, profiles []*Profile) (*Config, error) {
	folder, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("cannot find the folder of %s: %w", file, err)
	}
	cfg := new(Config)
	d := newDocument(file)
	if d.read(data, cfg); d.faulty[""] {
		return nil, d.problems.err()
	}
	v := validation{document: d, folder: folder, profiles: profiles}
	v.config(cfg)
	if err := d.problems.err(); err != nil {
		return nil, err
	}
	cfg.Hash = hash(data, cfg)
	return cfg, nil
}

// hash is Config.Hash: profiles count once each, in the order of their ids.
func hash(data []byte, cfg *Config) string {
	var used []*Profile
	for _, b := range cfg.Buses {
		for _, d := range b.Devices {
			used = append(used, d.Model)
		}
	}
	slices.SortFunc(used, func(a, b *Profile) int { return cmp.Compare(a.ID, b.ID) })
	h := sha256.New()
	h.Write(data)
	for _, p := range slices.Compact(used) {
		h.Write(p.sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}
