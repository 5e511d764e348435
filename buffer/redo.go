package buffer

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"
)

// The redo log is a file of fixed size in front of Badger. A Commit that is small is written there and nowhere else
// before it returns: one write in place and one fdatasync, which costs a page of flash and, since every block of the
// file was allocated when it was made, no change of the file system's own records. A Commit to Badger costs two files'
// pages and a turn of the file system's journal, eight times as much. What gathers goes to Badger with the next large
// Commit, and blocks that became a leaf by then never go there.
//
// The file is a ring of frames, each beginning on a page of its own: no write ever touches a page that holds another
// frame, so a torn write damages only the frame that was being written. Frames are numbered by their Commit. Reading
// takes the frames that follow Badger's state without a hole; a frame in front of a hole was acknowledged and is gone.
const (
	redoName  = "redo"
	redoBytes = 1 << 20
	redoPage  = 4096

	redoMagic  = 0x48425232            // "HBR2"
	redoHeader = 4 + 4 + 4 + 8 + 8 + 8 // magic, checksum of all that follows it, payload length, number, base, model
	redoMost   = redoBytes / 4         // bytes of one frame; a larger Commit goes to Badger at once
	redoPlain  = redoMost * 32         // bytes of one frame's records, uncompressed: bounds what a damaged frame may ask for
	redoLevel  = flate.DefaultCompression
	redoInfo   = "hubagent redo log v1" // HKDF's info: Badger and the redo log do not share a key
)

// frame is one Commit in the redo log.
type frame struct {
	number  int64 // of the Commit
	base    int64 // number of the last Commit that was in Badger when this one was written
	records []record
	broken  bool // it cannot be read, because its model is not there; one that is in Badger may have lost it to a newer frame
}

// redoFile is what the redo log needs of its file; tests put faults in between.
type redoFile interface {
	io.WriterAt
	Datasync() error
	Close() error
}

type dataFile struct{ *os.File }

// Datasync returns when the file's data is on the disk. The time of its last change need not be, which saves a turn of
// the file system's journal.
func (f dataFile) Datasync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openData opens a file past the page cache where the file system can. Through the cache, a kernel that keeps files in
// large folios takes the whole folio for changed, and counts or even writes a megabyte for a page.
func openData(path string, flags int) (dataFile, error) {
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0o600)
	if errors.Is(err, unix.EINVAL) {
		f, err = os.OpenFile(path, flags, 0o600)
	}
	return dataFile{f}, err
}

// pages returns n bytes that begin on a page, as direct input and output wants them.
func pages(n int) []byte {
	b := make([]byte, n+redoPage)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % redoPage
	return b[skip : skip+uintptr(n) : skip+uintptr(n)]
}

// redo is the open log. It is not safe for concurrent use: the one Commit under way owns it.
type redo struct {
	file redoFile
	pos  int64 // where the next frame goes, unless it has to wrap
	last int64 // number of the newest frame; 0: none
	used int64 // bytes that hold frames not in Badger yet, with what was left at the file's end
	aead cipher.AEAD
	pack *flate.Writer
	page []byte // the frame being written, see pages

	// The readings of one sync interval are like those of another. A frame that would take several pages is compressed
	// with the first such one since Badger took all as its model, where that saves a page.
	model       []byte // its records
	modelNumber int64  // of its Commit; 0: none
	plain       []byte // the records of the frame being written
}

// openRedo opens the log and returns the frames that it holds, by their numbers.
func openRedo(dir string, key []byte) (r *redo, frames []frame, err error) {
	if r, frames, err = readRedo(dir, key); err != nil {
		return nil, nil, err
	}
	if r.file, err = openData(filepath.Join(dir, redoName), os.O_RDWR); err != nil {
		return nil, nil, fmt.Errorf("cannot open the journal's redo log: %w", err)
	}
	return r, frames, nil
}

// readRedo reads the log without changing it: what it returns first has no file. Errors: fs.ErrNotExist, a *DamageError,
// which may come with what frames are left, or one of the disk.
func readRedo(dir string, key []byte) (r *redo, frames []frame, err error) {
	r = &redo{}
	var damage error
	if key != nil {
		if r.aead, err = redoCipher(key); err != nil {
			return nil, nil, fmt.Errorf("cannot use the journal's key: %w", err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, redoName))
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the journal's redo log: %w", err)
	}
	if size := len(raw); size != redoBytes {
		damage = &DamageError{dir, fmt.Sprintf("redo log has %d bytes and should have %d", size, redoBytes)}
		raw = append(raw[:min(size, redoBytes)], make([]byte, max(0, redoBytes-size))...)
	}
	take := func(f frame, at, size int64) {
		frames = append(frames, f)
		if f.number > r.last {
			r.last, r.pos = f.number, at+size
		}
	}
	models, later := map[int64][]byte{}, []int64{}
	for at := int64(0); at < redoBytes; at += redoPage {
		f, size, err := r.parse(raw[at:], models)
		if err == nil && size == 0 && mendFrame(raw[at:]) {
			f, size, err = r.parse(raw[at:], models)
		}
		switch {
		case err != nil:
			return nil, nil, &DamageError{dir, fmt.Sprintf("redo log at byte %d: %v", at, err)}
		case f.broken:
			later = append(later, at)
		case size > 0:
			take(f, at, size)
		}
	}
	for _, at := range later { // now every model that there is has been read
		f, size, err := r.parse(raw[at:], models)
		if err != nil {
			return nil, nil, &DamageError{dir, fmt.Sprintf("redo log at byte %d: %v", at, err)}
		}
		take(f, at, size)
	}
	slices.SortFunc(frames, func(a, b frame) int { return cmp.Compare(a.number, b.number) })
	return r, frames, damage
}

// mendFrame puts right the one bit by which the frame at the beginning of b does not match its checksum. Of a frame that
// was not written to its end more than that is wrong, so the two can be told apart: that one was not acknowledged.
func mendFrame(b []byte) bool {
	if bits.OnesCount32(binary.BigEndian.Uint32(b)^redoMagic) > 1 {
		return false
	}
	fits := func() bool {
		length := int64(binary.BigEndian.Uint32(b[8:]))
		return binary.BigEndian.Uint32(b) == redoMagic && length <= int64(len(b)-redoHeader) &&
			crc32.Checksum(b[8:redoHeader+length], castagnoli()) == binary.BigEndian.Uint32(b[4:])
	}
	for bit := range 12 * 8 { // magic, checksum, length
		b[bit/8] ^= 1 << (bit % 8)
		if fits() {
			return true
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	length := int64(binary.BigEndian.Uint32(b[8:]))
	return length <= int64(len(b)-redoHeader) && mendBit(b[8:redoHeader+length], binary.BigEndian.Uint32(b[4:]))
}

func redoCipher(key []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, key, nil, redoInfo, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// makeRedo makes the log when there is none. It is a file of zeros: blocks that were only reserved would have to be
// marked as written, one by one, in the file system's journal. Its name is not durable yet.
func makeRedo(path string, step step) error {
	f, err := openData(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	err = step("write redo log", func() error { _, err := f.Write(pages(redoBytes)); return err })
	if err == nil {
		err = step("sync redo log", f.Sync)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return step("rename redo log", func() error { return os.Rename(path+".new", path) })
}

// syncDir makes names that were made, changed or removed in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// encode returns the frame as it stands on disk, in whole pages. It is valid until the next call.
func (r *redo) encode(f frame) ([]byte, error) {
	var plain []byte
	for _, rec := range f.records {
		plain = binary.AppendUvarint(plain, uint64(len(rec.key)))
		plain = append(plain, rec.key...)
		if rec.value == nil {
			plain = binary.AppendUvarint(plain, 0)
			continue
		}
		plain = binary.AppendUvarint(plain, uint64(len(rec.value))+1)
		plain = append(plain, rec.value...)
	}
	r.plain = plain
	payload, err := r.deflate(plain, nil)
	if err != nil {
		return nil, err
	}
	model := int64(0)
	if pages := r.frameBytes(payload); pages > redoPage && r.modelNumber > 0 {
		shorter, err := r.deflate(plain, r.model)
		if err != nil {
			return nil, err
		}
		if r.frameBytes(shorter) < pages {
			payload, model = shorter, r.modelNumber
		}
	}
	numbers := binary.BigEndian.AppendUint64(nil, uint64(f.number))
	numbers = binary.BigEndian.AppendUint64(numbers, uint64(f.base))
	numbers = binary.BigEndian.AppendUint64(numbers, uint64(model))
	if r.aead != nil {
		payload = r.aead.Seal(nil, nil, payload, numbers)
	}
	size := roundUp(redoHeader + len(payload))
	if cap(r.page) < size {
		r.page = pages(size)
	}
	b := binary.BigEndian.AppendUint32(r.page[:0], redoMagic)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(append(b, numbers...), payload...)
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli()))
	clear(b[len(b):size])
	return b[:size], nil
}

// deflate compresses the records of a frame, with those of another one as a model.
func (r *redo) deflate(plain, model []byte) ([]byte, error) {
	packed := bytes.NewBuffer(nil)
	if r.pack == nil {
		r.pack, _ = flate.NewWriter(nil, redoLevel) // fails only for a level that does not exist
	}
	r.pack.ResetDict(packed, model)
	_, err := r.pack.Write(plain)
	err = errors.Join(err, r.pack.Close())
	return packed.Bytes(), err
}

// frameBytes is what a frame of a payload, not encrypted yet, takes.
func (r *redo) frameBytes(payload []byte) int {
	size := redoHeader + len(payload)
	if r.aead != nil {
		size += r.aead.Overhead()
	}
	return roundUp(size)
}

func roundUp(n int) int { return (n + redoPage - 1) / redoPage * redoPage }

// parse reads the frame at the beginning of b. Size 0 means that there is none, or one that was not written to its
// end. An error means that it is whole and cannot be understood. models are the records of frames of several pages, which
// it adds to, by the numbers of their Commits.
func (r *redo) parse(b []byte, models map[int64][]byte) (f frame, size int64, err error) {
	if len(b) < redoHeader || binary.BigEndian.Uint32(b) != redoMagic {
		return f, 0, nil
	}
	length := int64(binary.BigEndian.Uint32(b[8:]))
	if length > int64(len(b)-redoHeader) || binary.BigEndian.Uint32(b[4:]) != crc32.Checksum(b[8:redoHeader+length], castagnoli()) {
		return f, 0, nil
	}
	f.number = int64(binary.BigEndian.Uint64(b[12:]))
	f.base = int64(binary.BigEndian.Uint64(b[20:]))
	payload := b[redoHeader : redoHeader+length]
	if r.aead != nil {
		if payload, err = r.aead.Open(nil, nil, payload, b[12:redoHeader]); err != nil {
			return f, 0, errors.New("it was written with another key, or without one")
		}
	}
	size = int64(roundUp(int(redoHeader + length)))
	number := int64(binary.BigEndian.Uint64(b[28:]))
	model := models[number]
	if number != 0 && model == nil {
		f.broken = true
		return f, size, nil
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReaderDict(bytes.NewReader(payload), model), redoPlain+1))
	if err != nil || len(plain) > redoPlain {
		return f, 0, fmt.Errorf("a frame that is not ours, or was written with a key: %v", err)
	}
	if f.records, err = parseRecords(plain); err != nil {
		return f, 0, err
	}
	if number == 0 && size > redoPage {
		models[f.number] = plain
	}
	return f, size, nil
}

func parseRecords(b []byte) (list []record, err error) {
	take := func() []byte {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			err = errors.New("records do not fit their frame")
			return nil
		}
		field := b[w : w+int(n)]
		b = b[w+int(n):]
		return field
	}
	for len(b) > 0 && err == nil {
		key := take()
		if err != nil {
			break
		}
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w)+1 {
			return nil, errors.New("records do not fit their frame")
		}
		b = b[w:]
		rec := record{key: key}
		if n > 0 {
			rec.value, b = b[:n-1:n-1], b[n-1:]
		}
		list = append(list, rec)
	}
	return list, err
}

// fits says whether an encoded frame can be appended without overwriting what is not in Badger yet.
func (r *redo) fits(size int64) bool {
	_, used := r.place(size)
	return used <= redoBytes
}

// place says where a frame goes, and what is in use with it.
func (r *redo) place(size int64) (pos, used int64) {
	if r.pos+size > redoBytes {
		return 0, r.used + (redoBytes - r.pos) + size
	}
	return r.pos, r.used + size
}

// append writes an encoded frame and returns when it is on the disk.
func (r *redo) append(b []byte) error {
	pos, used := r.place(int64(len(b)))
	if _, err := r.file.WriteAt(b, pos); err != nil {
		return fmt.Errorf("redo log: %w", err)
	}
	if err := r.file.Datasync(); err != nil {
		return fmt.Errorf("redo log: %w", err)
	}
	r.pos, r.used, r.last = pos+int64(len(b)), used, int64(binary.BigEndian.Uint64(b[12:]))
	if r.modelNumber == 0 && len(b) > redoPage {
		r.model, r.modelNumber = r.plain, r.last
	}
	return nil
}

// release says that everything is in Badger.
func (r *redo) release() { r.used, r.model, r.modelNumber = 0, nil, 0 }
