#include "runtime/store/tfevents.h"

#include <random>

#include "runtime/store/crc32c.h"
#include "tests/cluster/testing.h"

namespace echelon {
namespace {

TEST(Crc32c, GivesTheKnownChecksums) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(masked_crc32c("123456789"), 0xC78AB0E5u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(Crc32c, TheInstructionAgreesWithTheTable) {
  std::mt19937 random(3);
  for (size_t size = 0; size < 200; ++size) {
    std::string bytes(size, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    EXPECT_EQ(crc32c(bytes), crc32c_table(bytes)) << size;
  }
}

TEST(TfEvents, TheFirstRecordIsTheGoldenOne) {
  EXPECT_EQ(tfevents_version(0),
            from_hex("1800000000000000a37f4b220900000000000000001a0d627261696e2e4576656e743a32eedf28a3"));
}

TEST(TfEvents, AScalarIsTheGoldenOne) {
  EXPECT_EQ(tfevents_scalar("loss", 0.5f, 7, 1),
            from_hex("1a00000000000000129bd82d09000000000000f03f10072a0d0a0b0a046c6f7373150000003f862c9a2f"));
}

TEST(TensorBoardWriter, EachWriterHasAFileOfItsOwn) {
  TemporaryFolder folder;
  TensorBoardWriter first(folder.at("tensorboard"), 1), second(folder.at("tensorboard"), 1);
  EXPECT_NE(first.path(), second.path());
  EXPECT_NE(first.path().find("/events.out.tfevents."), std::string::npos);
  first.scalar("loss", 1, 1);
  first.flush();
  EXPECT_GT(contents(first.path()).size(), contents(second.path()).size());
}

TEST(TensorBoardWriter, WhatIsPendingIsWrittenAtTheEnd) {
  TemporaryFolder folder;
  std::string path;
  {
    TensorBoardWriter writer(folder.path(), 1);
    writer.scalar("loss", 0.5, 7, 1);
    path = writer.path();
  }
  EXPECT_TRUE(contents(path).ends_with(tfevents_scalar("loss", 0.5f, 7, 1)));
}

}  // namespace
}  // namespace echelon
