import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.Base64;
import java.util.Properties;

/**
 * Logs in as asked on standard input, once for each line of base64("name\0value\0…") with the JDBC driver's properties and the
 * URL as "url", and answers each with base64("ok\0rows") or base64("failed\0SQLSTATE\0message").
 */
public final class Probe {
  public static void main(String[] arguments) throws Exception {
    BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
    for (String line = requests.readLine(); line != null; line = requests.readLine()) {
      String[] parts = new String(Base64.getDecoder().decode(line), "UTF-8").split("\0", -1);
      Properties properties = new Properties();
      String url = null;
      for (int i = 0; i + 1 < parts.length; i += 2) {
        if (parts[i].equals("url")) url = parts[i + 1];
        else properties.setProperty(parts[i], parts[i + 1]);
      }
      System.out.println(Base64.getEncoder().encodeToString(login(url, properties).getBytes("UTF-8")));
    }
  }

  private static String login(String url, Properties properties) {
    try (Connection connection = DriverManager.getConnection(url, properties);
        ResultSet rows = connection.prepareStatement("SELECT session_user::text").executeQuery()) {
      rows.next();
      return "ok\0" + rows.getString(1);
    } catch (SQLException error) {
      return "failed\0" + error.getSQLState() + "\0" + error.getMessage();
    }
  }
}
