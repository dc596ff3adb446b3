package block_test

import (
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/sync/block"
)

func Example() {
	keys, err := block.NewKeys(1, map[uint32]block.Secret{1: {1, 2, 3}}) // the hive's
	if err != nil {
		panic(err)
	}
	id, sealed, err := keys.Seal(block.Data, []byte("dear diary"))
	if err != nil {
		panic(err)
	}
	fmt.Println(len(sealed), "bytes to store and to send")

	plain, err := keys.Open(id, block.Data, sealed)
	fmt.Printf("%s, %v\n", plain, err)

	again, _, err := keys.Seal(block.Data, []byte("dear diary"))
	fmt.Println("stored once:", again == id, err)
	// Output:
	// 57 bytes to store and to send
	// dear diary, <nil>
	// stored once: true <nil>
}

// A device without the hive's secrets can still tell good bytes from bad ones.
func ExampleVerify() {
	sealed := []byte("bytes that came from a peer")
	id := block.Sum(sealed)
	fmt.Println(block.Verify(id, sealed))

	sealed[3] ^= 1
	err := block.Verify(id, sealed)
	fmt.Println(errors.Is(err, block.ErrDamaged))
	// Output:
	// <nil>
	// true
}

func ExampleParseID() {
	id, err := block.ParseID("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
	fmt.Println(id == block.Sum(nil), err)
	// Output: true <nil>
}
