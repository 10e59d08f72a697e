// Batch scripts: whatever an argument holds, the shell hands it on as it is.
#include <gtest/gtest.h>

#include "launch/command/child.h"
#include "launch/command/submit.h"
#include "tests/launch/hostile_words.h"
#include "tests/recipe/folder.h"

namespace echelon {

TEST(BatchScript, HandsHostileArgumentsOnAsTheyAre) {
  Folder folder;
  std::vector<std::string> words = hostile_words(10'000), command = {"/usr/bin/printf", "%s\\0"};
  command.insert(command.end(), words.begin(), words.end());
  std::string script = folder.write("submit.sh", batch_script(command)), expected;
  for (const std::string& word : words) expected += word + '\0';
  EXPECT_EQ(output_of({"/bin/sh", script}, 30), expected);
}

TEST(BatchScript, EndsWithTheExitCodeOfTheRun) {
  Folder folder;
  std::string script = folder.write("submit.sh", batch_script({"/bin/sh", "-c", "exit 5"}));
  Child child = Child::start({.arguments = {"/bin/sh", script}});
  while (!child.ended()) child.read_output(5);
  EXPECT_EQ(child.ended()->exit_code, 5);
}

}  // namespace echelon
