// Writes FOLDER/READER/NUMBER of every reader's attacks and good files, for judges in other languages.
#include "cluster/base/files.h"
#include "tests/hostile/seeds.h"

int main(int count, char** values) {
  if (count != 2) return 2;
  for (const auto& reader : echelon::hostile::light_readers())
    echelon::hostile::write_seeds(echelon::join_path(values[1], reader.name), reader);
}
