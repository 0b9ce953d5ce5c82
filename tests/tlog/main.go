// An outside look at a forensic log, with the reference implementation of signed notes and Merkle logs
// (golang.org/x/mod/sumdb): nothing here was written for AgentSec's own code.
//
//	tlog DIRECTORY KEY          checks every entry of the log against its signed checkpoint
//	tlog --proof FILE KEY       checks a proof that an entry is in a log
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	var err error
	if len(os.Args) == 4 && os.Args[1] == "--proof" {
		err = checkProof(os.Args[2], os.Args[3])
	} else if len(os.Args) == 3 {
		err = checkLog(os.Args[1], os.Args[2])
	} else {
		err = fmt.Errorf("usage: tlog DIRECTORY KEY | tlog --proof FILE KEY")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// open returns the tree of a signed checkpoint.
func open(signed []byte, key string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := parseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

func parseHash(text string) (tlog.Hash, error) {
	bytes, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(bytes) != tlog.HashSize {
		return tlog.Hash{}, fmt.Errorf("%q is no hash", text)
	}
	var hash tlog.Hash
	copy(hash[:], bytes)
	return hash, nil
}

// reader reads tiles where C2SP's tlog-tiles has them.
type reader struct{ directory string }

func (r reader) Height() int { return 8 }

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		bytes, err := os.ReadFile(filepath.Join(r.directory, path))
		if err != nil {
			// A full tile has taken the place of its beginning.
			full := tile
			full.W = 256
			path = strings.Replace(full.Path(), "tile/8/", "tile/", 1)
			bytes, err = os.ReadFile(filepath.Join(r.directory, path))
			if err != nil {
				return nil, err
			}
			bytes = bytes[:tile.W*tlog.HashSize]
		}
		all = append(all, bytes)
	}
	return all, nil
}

func (r reader) SaveTiles([]tlog.Tile, [][]byte) {}

func checkLog(directory, key string) error {
	signed, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := open(signed, key)
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tree, reader{directory})
	for first := int64(0); first < tree.N; first += 256 {
		count := tree.N - first
		if count > 256 {
			count = 256
		}
		entries, err := bundle(directory, first/256, int(count))
		if err != nil {
			return err
		}
		indexes := make([]int64, count)
		for at := range indexes {
			indexes[at] = tlog.StoredHashIndex(0, first+int64(at))
		}
		// This proves each of them against the checkpoint's root.
		found, err := hashes.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for at, entry := range entries {
			if tlog.RecordHash(entry) != found[at] {
				return fmt.Errorf("entry %d is not the one that was signed", first+int64(at))
			}
		}
	}
	fmt.Printf("%d entries\n", tree.N)
	return nil
}

// bundle reads entries: each has its length in two bytes before it.
func bundle(directory string, index int64, count int) ([][]byte, error) {
	tile := tlog.Tile{H: 8, L: 0, N: index, W: count}
	path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
	bytes, err := os.ReadFile(filepath.Join(directory, path))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(bytes) > 0 {
		if len(bytes) < 2 || len(bytes) < 2+int(binary.BigEndian.Uint16(bytes)) {
			return nil, fmt.Errorf("%s is cut", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(bytes))
		entries = append(entries, bytes[2:end])
		bytes = bytes[end:]
	}
	if len(entries) != count {
		return nil, fmt.Errorf("%s has %d entries, not %d", path, len(entries), count)
	}
	return entries, nil
}

func checkProof(path, key string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, signed, found := strings.Cut(string(text), "\n\n")
	if !found {
		return fmt.Errorf("not a proof")
	}
	tree, err := open([]byte(signed), key)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(strings.NewReader(head))
	lines.Buffer(nil, 1<<20)
	var proof tlog.RecordProof
	var entry []byte
	index := int64(-1)
	for number := 0; lines.Scan(); number++ {
		line := lines.Text()
		switch {
		case number == 0 && line == "c2sp.org/tlog-proof@v1":
		case number == 1 && strings.HasPrefix(line, "extra "):
			entry, err = base64.StdEncoding.DecodeString(line[len("extra "):])
		case number == 2 && strings.HasPrefix(line, "index "):
			index, err = strconv.ParseInt(line[len("index "):], 10, 64)
		case number > 2:
			var hash tlog.Hash
			hash, err = parseHash(line)
			proof = append(proof, hash)
		default:
			err = fmt.Errorf("not a proof: %q", line)
		}
		if err != nil {
			return err
		}
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return err
	}
	fmt.Printf("entry %d of %d\n", index, tree.N)
	return nil
}
