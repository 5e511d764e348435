package buffer

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"
)

// What Badger's files hold, read without Badger. Badger is trusting: it cuts a log off where an entry is damaged, deletes
// tables that its manifest does not name, and ends the process on a table whose index is damaged. So its files are looked
// at before it may touch them; and what is left of a damaged store is gathered from them, entry by entry.

// entry is a key with its value as one of Badger's files holds it.
type entry struct {
	key     []byte
	version uint64 // the transaction's number
	meta    byte
	value   []byte
}

// Bits of an entry's meta byte, as Badger writes them.
const (
	metaDelete  = 1 << 0
	metaPointer = 1 << 1 // the value stands in a value log
	metaTx      = 1 << 6 // part of a transaction
	metaTxEnd   = 1 << 7 // its end
	metaKnown   = metaDelete | metaPointer | 1<<2 | 1<<3 | metaTx | metaTxEnd
)

// splitKey takes the version off a key.
func splitKey(b []byte) (key []byte, version uint64, ok bool) {
	if len(b) < 8 {
		return nil, 0, false
	}
	return b[:len(b)-8], math.MaxUint64 - binary.BigEndian.Uint64(b[len(b)-8:]), true
}

// pointer is where an entry lies in a value log.
type pointer struct{ file, size, at uint32 }

func (e entry) pointer() (p pointer, ok bool) {
	if e.meta&metaPointer == 0 || len(e.value) != 12 {
		return p, false
	}
	return pointer{binary.LittleEndian.Uint32(e.value), binary.LittleEndian.Uint32(e.value[4:]), binary.LittleEndian.Uint32(e.value[8:])}, true
}

// ours says whether a key is one that this package or Badger itself writes.
func ours(key []byte) bool {
	if bytes.Equal(key, headKey) || bytes.HasPrefix(key, []byte("!badger!")) {
		return true
	}
	if len(key) == 0 {
		return false
	}
	switch key[0] {
	case leafPrefix, lastingPrefix, hashPrefix, droppedPrefix, droppedLastingPrefix, blockPrefix:
		return len(key) == 9
	case statePrefix, flushPrefix:
		return true
	}
	return false
}

// plausible says whether an entry was decrypted rightly: with another key or counter a key of ours comes out by chance, and
// of the many bits that may be wrong one would do.
func plausible(e entry) bool {
	if !ours(e.key) {
		return false
	}
	_, points := e.pointer()
	switch {
	case e.key[0] == '!', bytes.Equal(e.key, headKey), len(e.key) == 1:
		return true
	case !points && e.meta&metaDelete == 0:
		_, ok := unseal(e.key, e.value)
		return ok
	case e.key[0] == statePrefix:
		return !bytes.ContainsFunc(e.key, func(r rune) bool { return r < ' ' || r > '~' })
	}
	return keyNumber(e.key) < 1<<40
}

// dataKeys are the keys that Badger's files are encrypted with, by their number. 0 stands for no encryption.
type dataKeys map[uint64]cipher.Block

const registryName = "KEYREGISTRY"

// readRegistry reads Badger's data keys, which are encrypted with the journal's key. Errors: fs.ErrNotExist,
// badger.ErrEncryptionKeyMismatch, which a damaged file gives, too, or what is damaged.
func readRegistry(dir string, key []byte) (dataKeys, error) {
	list := dataKeys{0: nil}
	raw, err := os.ReadFile(filepath.Join(dir, registryName))
	if err != nil {
		return nil, err
	}
	// Badger asks for as much memory as a length says, be it damaged.
	const text = aes.BlockSize + len("Hello Badger")
	if len(raw) < text {
		return nil, errors.New("cut short")
	}
	count := uint64(0)
	for at := text; at < len(raw); count++ {
		if len(raw)-at < 8 || int(binary.BigEndian.Uint32(raw[at:])) > len(raw)-at-8 {
			return nil, errors.New("it does not end with a key")
		}
		at += 8 + int(binary.BigEndian.Uint32(raw[at:]))
	}
	registry, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: dir, ReadOnly: true, EncryptionKey: key})
	if err != nil {
		return nil, err
	}
	for id := uint64(1); id <= count; id++ {
		k, err := registry.DataKey(id)
		if err != nil {
			return nil, err
		}
		if list[id], err = aes.NewCipher(k.Data); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// badgerFiles returns the numbers of files with an ending, in order.
func badgerFiles(dir, ending string) (list []uint64, err error) {
	all, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range all {
		name, is := strings.CutSuffix(f.Name(), ending)
		if n, err := strconv.ParseUint(name, 10, 64); is && err == nil {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

// The names of Badger's files.
const (
	tableEnding    = ".sst"
	memtableEnding = ".mem"
	valueLogEnding = ".vlog"
)

func badgerFile(dir string, n uint64, ending string) string {
	width := 6
	if ending == memtableEnding {
		width = 5
	}
	return filepath.Join(dir, fmt.Sprintf("%0*d%s", width, n, ending))
}

// logHeader is what a value log or the log of a memtable begins with: the number of its key and the beginning of the
// counter.
const logHeader = 8 + 12

// A log is a value log, or the log of a memtable.
type log struct {
	raw   []byte
	block cipher.Block
}

func openLog(raw []byte, keys dataKeys) (l log, ok bool) {
	if len(raw) < logHeader {
		return l, false
	}
	block, ok := keys[binary.BigEndian.Uint64(raw)]
	return log{raw, block}, ok
}

// openDamagedLog opens a log whose header may have one wrong bit. sound says that it has none.
func openDamagedLog(raw []byte, keys dataKeys) (l log, sound, ok bool) {
	if len(raw) < logHeader {
		return l, false, false
	}
	if l, ok = openLog(raw, keys); ok {
		if e, _, first := l.entry(logHeader); !first || plausible(e) {
			return l, true, true
		}
	}
	l, ok = log{raw: raw}.mendHeader(keys)
	return l, false, ok
}

// mendHeader looks for the one bit in the header of an encrypted log with which its first entry is one of ours.
func (l log) mendHeader(keys dataKeys) (log, bool) {
	for bit := range logHeader * 8 {
		raw := slices.Clone(l.raw)
		raw[bit/8] ^= 1 << (bit % 8)
		mended, ok := openLog(raw, keys)
		if !ok {
			continue
		}
		if e, _, ok := mended.entry(logHeader); ok && plausible(e) {
			return mended, true
		}
	}
	return l, false
}

// extent parses an entry's header and says where its parts are.
func extent(raw []byte) (head, keyLen, size int, ok bool) {
	if len(raw) < 5 || raw[0]&^metaKnown != 0 || raw[1] != 0 {
		return 0, 0, 0, false
	}
	at := 2
	var field [3]uint64 // lengths of key and value, time of expiry
	for i := range field {
		n, w := binary.Uvarint(raw[at:])
		if w <= 0 || n > MaxLeafBytes*2 {
			return 0, 0, 0, false
		}
		field[i] = n
		at += w
	}
	size = at + int(field[0]+field[1]) + crc32.Size
	if field[0] < 9 || field[0] > 1<<16 || field[2] != 0 || size > len(raw) {
		return 0, 0, 0, false
	}
	return at, int(field[0]), size, true
}

// entry reads the entry at an offset; ok means that it matches its checksum.
func (l log) entry(at int) (e entry, size int, ok bool) {
	head, keyLen, size, ok := extent(l.raw[at:])
	if !ok {
		return e, 0, false
	}
	raw := l.raw[at : at+size]
	if crc32.Checksum(raw[:size-crc32.Size], castagnoli()) != binary.BigEndian.Uint32(raw[size-crc32.Size:]) {
		return e, 0, false
	}
	e, ok = l.decode(raw, at, head, keyLen)
	return e, size, ok
}

func (l log) decode(raw []byte, at, head, keyLen int) (e entry, ok bool) {
	data := raw[head : len(raw)-crc32.Size]
	if l.block != nil {
		iv := binary.BigEndian.AppendUint32(slices.Clone(l.raw[8:logHeader]), uint32(at))
		plain := make([]byte, len(data))
		cipher.NewCTR(l.block, iv).XORKeyStream(plain, data)
		data = plain
	}
	e.meta, e.value = raw[0], data[keyLen:]
	e.key, e.version, ok = splitKey(data[:keyLen])
	return e, ok
}

// mend reads an entry of which one bit is wrong.
func (l log) mend(at int) (e entry, size int, ok bool) {
	for bit := range 22 * 8 { // in its header, which may say the wrong size
		if at+bit/8 >= len(l.raw) {
			break
		}
		l.raw[at+bit/8] ^= 1 << (bit % 8)
		e, size, ok = l.entry(at)
		e.key, e.value = slices.Clone(e.key), slices.Clone(e.value) // the bit is put back
		l.raw[at+bit/8] ^= 1 << (bit % 8)
		if ok {
			return e, size, true
		}
	}
	head, keyLen, size, ok := extent(l.raw[at:])
	if !ok {
		return e, 0, false
	}
	raw := slices.Clone(l.raw[at : at+size])
	if !mendBit(raw[:size-crc32.Size], binary.BigEndian.Uint32(raw[size-crc32.Size:])) {
		return e, 0, false
	}
	e, ok = l.decode(raw, at, head, keyLen)
	return e, size, ok
}

// scan gives every entry of a log that can be read, with its place. sound is where the first one ends that is damaged, or
// the last one: Badger reads no further.
func (l log) scan(fn func(e entry, at, size int)) (sound int) {
	at, damaged := logHeader, false
	for at < len(l.raw) {
		e, size, ok := l.entry(at)
		if !ok {
			if !damaged {
				sound, damaged = at, true
			}
			if e, size, ok = l.mend(at); !ok {
				at = l.next(at + 1)
				continue
			}
		}
		fn(e, at, size)
		at += size
	}
	if !damaged {
		sound = at
	}
	return sound
}

// next finds an entry from an offset on.
func (l log) next(at int) int {
	for ; at < len(l.raw); at++ {
		if at+2 < len(l.raw) && l.raw[at+2] == 0 { // most of all are the zeros at the end
			continue
		}
		if e, _, ok := l.entry(at); ok && ours(e.key) {
			break
		}
	}
	return at
}

// mendBit puts right the one bit by which data does not match its checksum, which itself may be what is wrong.
func mendBit(data []byte, sum uint32) bool {
	table := castagnoli()
	wrong := crc32.Checksum(data, table) ^ sum
	if wrong == 0 || bits.OnesCount32(wrong) == 1 {
		return true
	}
	// A checksum is linear: one bit changes it by what the bit alone would give.
	var change [8]uint32
	for bit := range change {
		change[bit] = table[1<<bit]
	}
	for i := len(data) - 1; i >= 0; i-- {
		for bit, c := range change {
			if c == wrong {
				data[i] ^= 1 << bit
				return true
			}
			change[bit] = table[byte(c)] ^ c>>8
		}
	}
	return false
}

// readTable gives every entry of a table whose block matches its checksum. The error names the first damage.
func readTable(raw []byte, block cipher.Block, fn func(e entry)) (err error) {
	defer func() { // the index is parsed by its own package, which trusts it
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot be understood: %v", p)
		}
	}()
	index, rest, err := tableIndex(raw, block)
	if len(index) == 0 {
		return err
	}
	root := fb.GetRootAsTableIndex(index, 0)
	for i := range root.OffsetsLength() {
		var place fb.BlockOffset
		root.Offsets(&place, i)
		part, ok := []byte(nil), uint64(place.Offset())+uint64(place.Len()) <= uint64(len(rest))
		if ok {
			part, ok = decryptPart(rest[place.Offset():place.Offset()+place.Len()], block)
		}
		if !ok || !readBlock(part, fn) {
			err = cmp.Or(err, fmt.Errorf("has a damaged block at byte %d", place.Offset()))
		}
	}
	return err
}

// tableIndex returns a table's index and what is before it: with an error, too, where the index may still be readable.
func tableIndex(raw []byte, block cipher.Block) (index, rest []byte, err error) {
	rest = raw
	take := func(n uint32) (b []byte, ok bool) {
		if uint64(n) > uint64(len(rest)) {
			return nil, false
		}
		b, rest = rest[len(rest)-int(n):], rest[:len(rest)-int(n)]
		return b, true
	}
	takeCounted := func() (b []byte, ok bool) {
		if b, ok = take(4); !ok {
			return nil, false
		}
		return take(binary.BigEndian.Uint32(b))
	}
	sum, ok := takeCounted()
	if !ok {
		return nil, nil, errors.New("has no end")
	}
	if index, ok = takeCounted(); !ok {
		return nil, nil, errors.New("is cut short")
	}
	index, sound := checked(index, sum)
	if index, ok = decryptPart(index, block); !ok || !sound {
		return index, rest, errors.New("has a damaged index")
	}
	return index, rest, nil
}

// decryptPart decrypts a table's index or block, which ends with its counter's beginning.
func decryptPart(b []byte, block cipher.Block) ([]byte, bool) {
	if block == nil {
		return b, true
	}
	if len(b) < aes.BlockSize {
		return nil, false
	}
	plain := make([]byte, len(b)-aes.BlockSize)
	cipher.NewCTR(block, b[len(plain):]).XORKeyStream(plain, b[:len(plain)])
	return plain, true
}

// checked compares data with a checksum as Badger's tables hold it. Where one bit is wrong it says so, and the data it
// returns is right.
func checked(data, sum []byte) (mended []byte, ok bool) {
	var c pb.Checksum
	if err := proto.Unmarshal(sum, &c); err != nil || c.Algo != pb.Checksum_CRC32C {
		return data, false
	}
	if uint64(crc32.Checksum(data, castagnoli())) == c.Sum {
		return data, true
	}
	mended = slices.Clone(data)
	if !mendBit(mended, uint32(c.Sum)) {
		return data, false
	}
	return mended, false
}

// readBlock reads a table's block: entries, their offsets, their number, a checksum over all that, its length.
func readBlock(b []byte, fn func(e entry)) bool {
	if len(b) < 4 {
		return false
	}
	length := binary.BigEndian.Uint32(b[len(b)-4:])
	b = b[:len(b)-4]
	if uint64(length) > uint64(len(b)) {
		return false
	}
	data, sound := checked(b[:len(b)-int(length)], b[len(b)-int(length):])
	if len(data) < 4 {
		return false
	}
	count := int(binary.BigEndian.Uint32(data[len(data)-4:]))
	data = data[:len(data)-4]
	if count < 0 || count > len(data)/4 {
		return false
	}
	offsets, data := data[len(data)-count*4:], data[:len(data)-count*4]
	var base []byte
	for i := range count {
		from, to := int(binary.LittleEndian.Uint32(offsets[i*4:])), len(data)
		if i+1 < count {
			to = int(binary.LittleEndian.Uint32(offsets[i*4+4:]))
		}
		if from > to || to > len(data) || to-from < 4 {
			return false
		}
		// Each key names how much it shares with the first one.
		shared, own := int(binary.LittleEndian.Uint16(data[from:])), int(binary.LittleEndian.Uint16(data[from+2:]))
		rest := data[from+4 : to]
		if shared > len(base) || own > len(rest)-2 {
			return false
		}
		full := slices.Concat(base[:shared], rest[:own])
		if i == 0 {
			base = full
		}
		value := rest[own:]
		_, w := binary.Uvarint(value[2:]) // time of expiry
		if w <= 0 {
			return false
		}
		e := entry{meta: value[0], value: value[2+w:]}
		var ok bool
		if e.key, e.version, ok = splitKey(full); !ok {
			return false
		}
		if sound || ours(e.key) {
			fn(e)
		}
	}
	return sound
}

// namedTables returns the tables that Badger's manifest names, with the number of each one's data key.
func namedTables(dir string) (list map[uint64]uint64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot be understood: %v", p)
		}
	}()
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	list = map[uint64]uint64{}
	for n, t := range m.Tables {
		list[n] = t.KeyID
	}
	return list, nil
}
